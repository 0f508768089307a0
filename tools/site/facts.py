"""What is known of every method, each thing from where it stands: the catalogue, docstrings, results, measurements."""

import json
from collections.abc import Callable, Iterable
from importlib import import_module
from inspect import getdoc
from pathlib import Path
from typing import Any, NamedTuple

import torch

from benchmarks.leads import read_rows
from captum_gmar.attr.catalogue import METHODS, MethodEntry
from captum_gmar.attr.papers import papers_of
from captum_gmar.attr.patch_relevance import images_at_once, relevance_of
from captum_gmar.demo import DemoScene, load_model, load_scene
from captum_gmar.files.writing import write_text
from captum_gmar.inspection.passes import Passes, copy_counted

DOCS = Path(__file__).resolve().parents[2] / "docs"
SCENE = 600_025  # two objects that the built-in model is sure of, as on the page of attention evidence
# folders of results, on photos and on scenes: what came later has its own
FAITHFULNESS = (("deit-tiny", "later-deit-tiny", "more-deit-tiny"), ("built-in", "newer-built-in"))
COSTS = (  # the file, and the case in it, best first
    ("report.json", "ViT-B/16, 224², batch 1, float32"),
    ("report.json", "ViT-Ti/16, 224², batch 1, float32"),
    ("methods.json", "ViT-Ti/16, 224², batch 1, float32"),
)
MARKS = ("", "†", "‡")  # of these, in tables
OUR_OWN = ("attention-evidence", "token-evidence")  # papers that their docstrings name are of what they build on
ANY_MODEL, LAYERS_IN_A_LIST = "any", "layers in one list"
SMALL = 1e-6  # of the largest value: what rounding leaves below zero is no sign


class Fact(NamedTuple):
    """One method.

    Attributes:
        entry: its row of the catalogue.
        page: the page that it stands on.
        maps: of the classes of both objects of the scene, (2, rows, columns).
        passes: forward and backward, as measured.
        faithfulness: insertion less deletion by blur, on photos and on scenes; None where not measured.
        cost: time by the model's own pass, and by which of COSTS; None where not measured.
        source: the first paper that its docstring names; None of those that are our own.
    """

    entry: MethodEntry
    page: str
    maps: torch.Tensor
    passes: tuple[int | None, int | None]
    faithfulness: tuple[float | None, float | None]
    cost: tuple[float, int] | None
    source: str | None

    @property
    def is_signed(self) -> bool:
        """Return True if a map has values below zero."""
        return bool(self.maps.min() < -SMALL * self.maps.abs().max())

    @property
    def models(self) -> str:
        """Return the models that a method takes, by its docstring."""
        return LAYERS_IN_A_LIST if "nn.ModuleList" in docstring(self.entry) else ANY_MODEL


def class_of(entry: MethodEntry) -> Any:
    """Return the class of a method, without options."""
    module, _, name = entry.home.partition(":")
    return getattr(import_module(f"captum_gmar.{module}"), name)


def docstring(entry: MethodEntry) -> str:
    """Return the docstring of a method's class."""
    return getdoc(class_of(entry)) or ""


def scene() -> DemoScene:
    """Return the scene that all pictures of methods show."""
    return load_scene(SCENE, objects=2)


def gather() -> list[Fact]:
    """Gather a fact for every row of the catalogue."""
    model, shown = load_model(), scene()
    faithfulness = [_faithfulness(folders) for folders in FAITHFULNESS]
    costs = _costs()
    facts = []
    for name, entry in METHODS.items():
        torch.manual_seed(0)
        maps, passes = measure(entry.load(), model, shown)
        facts.append(
            Fact(
                *(entry, page_of(entry), maps, passes),
                faithfulness=tuple(table.get(name) for table in faithfulness),  # type: ignore[arg-type]
                cost=costs.get(name),
                source=_source(entry),
            )
        )
    return facts


def write_page(path: Path, text: str) -> None:
    """Makes its folder, if need be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, text)


def page_of(entry: MethodEntry) -> str:
    """Methods of one class share a page, and so do Captum's."""
    return entry.home.partition(":")[2] if entry.is_ours else "captum"


def measure(
    make: Callable[..., Any], model: Any, shown: DemoScene
) -> tuple[torch.Tensor, tuple[int | None, int | None]]:
    """Maps of both objects' classes, and the passes of one map."""
    passes, pixels = Passes(), shown.pixel_values
    watched, at_once = copy_counted(make(model), passes), images_at_once(pixels.device)
    maps = [relevance_of(watched, model, pixels, label, batch_size=at_once)[0] for label in shown.labels]
    return torch.stack(maps), passes.per_run(len(shown.labels))


def _faithfulness(folders: Iterable[str]) -> dict[str, float]:
    return {
        row["method"]: float(row["mean"])
        for folder in folders
        for row in read_rows(DOCS / "results" / folder / "summary.csv")
        if (row["metric"], row["removal"]) == ("insertion-deletion", "blur")
    }


def _costs() -> dict[str, tuple[float, int]]:
    costs: dict[str, tuple[float, int]] = {}
    for number, (name, case) in enumerate(COSTS):
        for row in json.loads((DOCS / "performance" / name).read_text(encoding="utf-8"))["cases"][case]:
            if row["ratio"]:
                costs.setdefault(row["row"], (row["ratio"]["median"], number))
    return costs


def _source(entry: MethodEntry) -> str | None:
    return None if entry.name in OUR_OWN else next(iter(papers_of(entry.name)), None)
