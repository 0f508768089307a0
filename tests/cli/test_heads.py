"""``captum-gmar heads``, end to end: against the library's functions, interrupted, and on bad input."""

import csv
import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from captum_gmar import GMARAttribution
from captum_gmar.cli.main import main
from captum_gmar.evaluation.head_scores import Found, HeadWork, make_orders
from captum_gmar.evaluation.journal import Batch, read_batches
from captum_gmar.heads import (
    attention_entropy,
    gradient_of_mask,
    head_ablation_curve,
    head_importance,
    mean_head_outputs,
)
from cli.commandline import LABELS, Result, save_photo, written

IMAGES = 10


def read_found(journal: Path) -> list[Batch]:
    return list(read_batches(journal))


ABLATE = ("--ablate", "--random", 3, "--batch-size", 3)
TABLES = ("heads.csv", "ablation.csv")

Heads = Callable[..., Result]


@pytest.fixture
def data(work: Path) -> Path:
    """A table of images, labels being class indices."""
    lines = ["path,label"]
    for number in range(IMAGES):
        save_photo(work / f"{number}.png", seed=number)
        lines.append(f"{number}.png,{number % len(LABELS)}")
    (work / "data.csv").write_text("\n".join(lines))
    return work / "data.csv"


@pytest.fixture
def heads(capsys: pytest.CaptureFixture[str], models: Path) -> Heads:
    """Runs the command in this process, on the model "vit" unless another is given."""

    def heads(*arguments: object, model: str | None = "vit") -> Result:
        capsys.readouterr()
        given = ["--model", models / model] if model else []
        try:
            status = main(["heads", *map(str, [*arguments, *given])])
        except SystemExit as end:
            status = int(end.code or 0)
        return Result(status, *capsys.readouterr())

    return heads


@pytest.fixture
def model(loaded: tuple[Any, Any]) -> Any:
    return loaded[0]


@pytest.fixture
def pixels_of(data: Path, loaded: tuple[Any, Any]) -> Callable[[Sequence[str]], Tensor]:
    """Of image files, as the model "vit" takes them."""

    def pixels_of(names: Sequence[str]) -> Tensor:
        images = [Image.open(data.parent / name) for name in names]
        pixels: Tensor = loaded[1](images, return_tensors="pt")["pixel_values"]
        return pixels

    return pixels_of


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def content(folder: Path) -> dict[str, str]:
    """The tables, which must not change from run to run."""
    return {name: (folder / name).read_text() for name in TABLES}


def names(count: int = IMAGES) -> list[str]:
    return [f"{number}.png" for number in range(count)]


def test_scores_are_those_of_the_library(
    data: Path, heads: Heads, model: Any, pixels_of: Callable[[Sequence[str]], Tensor]
) -> None:
    done = heads(data, "--scores", "all", "--output", "results", "--batch-size", 3)
    assert done.status == 0, done.err
    assert done.out == f"{IMAGES} images scored: results/heads.md\n"
    found = rows(data.parent / "results" / "heads.csv")
    pixels = pixels_of(names())
    targets = model(pixels).logits.argmax(1)
    functions = {
        "gmar-l1": GMARAttribution(model).head_importance,
        "gmar-l2": GMARAttribution(model, norm="l2").head_importance,
        "mask-gradient": partial(gradient_of_mask, model),
        "entropy": partial(attention_entropy, model),
    }
    for score, function in functions.items():
        expected = head_importance(function, [(pixels, targets)]).records()
        own = [row for row in found if row["score"] == score]
        assert len(own) == len(expected)
        for row, other in zip(own, expected, strict=True):
            assert (row["layer"], row["head"]) == (str(other["layer"]), str(other["head"]))
            assert (row["class"] or "None", row["examples"]) == (str(other["class"]), str(other["examples"]))
            assert float(row["mean"]) == pytest.approx(other["mean"], rel=1e-4, abs=1e-6)
            if row["std"]:
                assert float(row["std"]) == pytest.approx(other["std"], rel=1e-3, abs=1e-6)
            else:
                assert other["examples"] == 1


@pytest.mark.parametrize("options", [(), ("--fill", "mean"), ("--within-layers",)])
def test_ablation_is_that_of_the_library(
    data: Path,
    heads: Heads,
    model: Any,
    pixels_of: Callable[[Sequence[str]], Tensor],
    options: tuple[str, ...],
) -> None:
    """Heads are ranked by one half of the images and silenced on the other."""
    done = heads(
        *(data, *ABLATE, *options, "--scores", "gmar-l1,mask-gradient"),
        *("--target", "label", "--output", "results", "--save-array", "all.npz"),
    )
    assert done.status == 0, done.err
    arrays = np.load(data.parent / "all.npz")
    tested = arrays["tested"].tolist()
    ranking = [name for name in names() if name not in tested]
    assert len(ranking) == len(tested) == IMAGES // 2
    assert tested != names()[: IMAGES // 2]  # drawn
    halves = [
        (pixels_of(half), torch.tensor([int(Path(name).stem) % len(LABELS) for name in half]))
        for half in (ranking, tested)
    ]
    fill = mean_head_outputs(model, halves[0][0]) if "mean" in options else None
    importance = {
        "gmar-l1": GMARAttribution(model).head_importance(halves[0][0], halves[0][1]).mean(0),
        "mask-gradient": gradient_of_mask(model, *halves[0]).mean(0),
    }
    orders = make_orders(importance, 3, seed=0)
    within = "--within-layers" in options
    curves = [
        head_ablation_curve(model, [halves[1]], order.importance, order=order.first, fill=fill, within_layers=within)
        for order in orders
    ]
    for name in ("accuracy", "probability", "logit"):
        expected = torch.cat([getattr(curve, name) for curve in curves])
        assert arrays[name] == pytest.approx(expected.numpy(), abs=1e-5)
    found = rows(data.parent / "results" / "ablation.csv")
    for index, order in enumerate(orders[:4]):
        own = [row for row in found if (row["score"], row["first"]) == (order.score, order.first)]
        for row, other in zip(own, curves[index].records(), strict=True):
            assert (row["silent"], row["what"], row["orders"]) == (str(other["silent"]), other["name"], "1")
            assert float(row["mean"]) == pytest.approx(other["mean"], abs=1e-5)
    random = [row for row in found if (row["score"], row["what"]) == ("random", "logit")]
    means = np.array([curve.mean("logit").numpy() for curve in curves[4:]])
    assert [float(row["lowest"]) for row in random] == pytest.approx(means.min(0), abs=1e-5)
    assert [float(row["highest"]) for row in random] == pytest.approx(means.max(0), abs=1e-5)
    assert [float(row["mean"]) for row in random] == pytest.approx(means.mean(0), abs=1e-5)


def test_random_orders_are_drawn_by_the_seed() -> None:
    importance = {"score": torch.rand(3, 4)}
    drawn = [[own.importance for own in make_orders(importance, 5, seed)[2:]] for seed in (0, 0, 1)]
    assert all(map(torch.equal, drawn[0], drawn[1]))
    assert not torch.equal(drawn[0][0], drawn[2][0])
    assert not torch.equal(drawn[0][0], drawn[0][1])


def test_areas_in_the_report(data: Path, heads: Heads) -> None:
    heads(data, *ABLATE, "--output", "results", "--save-array", "all.npz")
    arrays = np.load(data.parent / "all.npz")
    report = (data.parent / "results" / "heads.md").read_text()
    shares = arrays["silent"] / arrays["silent"][-1]
    areas = np.trapezoid(arrays["logit"], shares, axis=1).mean(1)
    lines = [" ".join(line.split()) for line in report[report.index("### Logit") :].splitlines()]
    for order, area in zip(arrays["order"], areas, strict=True):
        own = [line for line in lines if line.startswith(f"| {order}")]
        if order != "random":
            assert f"| {area:.3f} [" in own[0]
            as_good = areas[-3:] >= area if "least" in order else areas[-3:] <= area
            assert own[0].endswith(f"| {as_good.sum()} of 3 |")
    assert any(line.startswith(f"| random | {areas[-3:].mean():.3f} [") for line in lines)
    assert f"orders from {areas[-3:].min():.3f} to {areas[-3:].max():.3f}" in report


def interrupted_after(count: int, method: str, patch: pytest.MonkeyPatch) -> list[list[int]]:
    """Makes the method stop the command after some batches; the numbers of the examples that it was asked for."""
    asked: list[list[int]] = []
    original = getattr(HeadWork, method)

    def work(self: HeadWork, *arguments: Any) -> tuple[list[Found], list[Any]]:
        if len(asked) == count:
            raise KeyboardInterrupt
        asked.append(list(arguments[-1]))
        found: tuple[list[Found], list[Any]] = original(self, *arguments)
        return found

    patch.setattr(HeadWork, method, work)
    return asked


@pytest.mark.parametrize("method", ["weigh", "silence"])
def test_interrupted_and_resumed_is_unbroken(
    data: Path, heads: Heads, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    everything = (data, *ABLATE, "--output")
    with monkeypatch.context() as patch:
        first = interrupted_after(1, method, patch)
        assert heads(*everything, "broken").status == 130
    assert not (data.parent / "broken" / "heads.md").exists()
    with monkeypatch.context() as patch:
        asked = {name: interrupted_after(99, name, patch) for name in ("weigh", "silence")}
        assert heads(*everything, "broken").status == 0
    again = [number for batch in asked[method] for number in batch]
    assert not {*again} & {*first[0]}
    assert len(again) + len(first[0]) == (IMAGES if method == "weigh" else IMAGES // 2)
    assert asked["weigh"] == [] or method == "weigh"
    assert heads(*everything, "unbroken").status == 0
    assert content(data.parent / "broken") == content(data.parent / "unbroken")


def test_what_is_finished_is_not_computed_again(data: Path, heads: Heads, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where heads are silenced later, and in another way, and then in the first way again."""
    heads(data, "--output", "results")
    interrupted_after(0, "weigh", monkeypatch)
    found = []
    for options in ((), ("--fill", "mean"), ("--within-layers",)):
        assert heads(data, *ABLATE, *options, "--output", "results").status == 0
        found.append(content(data.parent / "results"))
    assert len({own["ablation.csv"] for own in found}) == 3
    interrupted_after(0, "silence", monkeypatch)
    assert heads(data, *ABLATE, "--output", "results").status == 0
    assert content(data.parent / "results") == found[0]


def test_more_images_can_follow(data: Path, heads: Heads) -> None:
    """The scores so far are kept; heads are ranked anew."""
    folder = data.parent / "results"
    heads(data, *ABLATE, "--output", folder, "--limit", 6)
    first = list(read_found(folder / "journal"))
    assert rows(folder / "ablation.csv")[0]["examples"] == "3"
    heads(data, *ABLATE, "--output", folder)
    assert list(read_found(folder / "journal"))[: len(first)] == first
    heads(data, *ABLATE, "--output", "whole")
    assert content(folder) == content(data.parent / "whole")


def test_an_image_that_two_runs_have_finished_counts_once(data: Path, heads: Heads) -> None:
    folder = data.parent / "results"
    for options in ((), ABLATE):
        heads(data, *options, "--output", folder)
        once = (folder / "heads.md").read_text(), content(folder) if options else None
        for journal in [*folder.glob("**/process-0.jsonl")]:
            journal.with_name("process-1.jsonl").write_bytes(journal.read_bytes())
        again = heads(data, *options, "--output", folder)
        assert again.out == f"{IMAGES} images scored: {folder / 'heads.md'}\n"
        assert once == ((folder / "heads.md").read_text(), content(folder) if options else None)


def test_results(data: Path, heads: Heads) -> None:
    heads(data, *ABLATE, "--scores", "all", "--output", "results")
    folder = data.parent / "results"
    assert written(folder) == [
        *(".lock", "ablation.csv", "ablation.png", "heads.csv", "heads.md", "heads.png", "journal", "settings.json")
    ]
    report = (folder / "heads.md").read_text()
    for part in ("gmar-l1, share of its layer", "mask-gradient, nats", "10 images", "predicted class", "on 5 others"):
        assert part in report
    for name in ("heads.png", "ablation.png"):
        with Image.open(folder / name) as picture:
            assert min(picture.size) > 300
            assert len(picture.convert("RGB").getcolors(2**24) or ()) > 50
    assert json.loads((folder / "settings.json").read_text())["settings"]["scores"][0] == "gmar-l1"


def test_one_image(work: Path, heads: Heads, model: Any, pixels: Tensor) -> None:
    done = heads("photo.png", "--scores", "gmar-l2", "--target", "Tiger Cat", "--save-array", "photo.npz")
    assert done.status == 0, done.err
    assert written(work) == ["out", "photo-heads.png", "photo.npz", "photo.png"]
    expected = GMARAttribution(model, norm="l2").head_importance(pixels, target=3)[0]
    arrays = np.load(work / "photo.npz")
    assert arrays["importance"].shape == (1, 1, 2, 2)
    assert arrays["importance"][0, 0] == pytest.approx(expected.numpy(), abs=1e-6)
    assert arrays["label"].tolist() == ["tiger cat"]
    lines = done.out.splitlines()
    assert lines[:3] == ["photo.png", "  explained  tiger cat (class 3)", "  picture    photo-heads.png"]
    assert ["|", "1", "|", f"{expected[1, 0]:.3g}", "|", f"{expected[1, 1]:.3g}", "|"] in [
        line.split() for line in lines
    ]
    assert "±" not in done.out
    with Image.open(work / "photo-heads.png") as picture:
        assert min(picture.size) > 300


def test_a_folder_of_images(work: Path, heads: Heads) -> None:
    save_photo(work / "other.png", seed=1)
    done = heads(".", "--output", "picture.svg")
    assert done.status == 0, done.err
    assert "<svg" in (work / "picture.svg").read_text()
    assert heads(".", "--output", "first.png").status == 0
    again = heads(".", "--output", "results")  # not of the picture that was drawn
    assert again.out.startswith("2 images scored")
    assert "± " in done.out


def test_built_in_scenes(work: Path, heads: Heads) -> None:
    done = heads("--limit", 4, "--scores", "gmar-l1", model=None)
    assert done.status == 0, done.err
    assert written(work) == ["built-in-scenes-heads.png", "out", "photo.png"]
    table = [line for line in done.out.splitlines() if line.startswith("| 0 ")]
    assert sum(float(cell.split("±")[0]) for cell in table[0].split("|")[2:-1]) == pytest.approx(1, abs=0.01)


def test_a_corrupt_image_is_listed_and_left_out(data: Path, heads: Heads) -> None:
    (data.parent / "3.png").write_bytes(b"no image")
    done = heads(data, *ABLATE, "--output", "results")
    assert done.status == 1
    assert len(done.err.splitlines()) == 1
    assert "3.png: not an image" in done.err
    folder = data.parent / "results"
    assert [row["name"] for row in rows(folder / "skipped.csv")] == ["3.png"]
    assert "## Left out\n\n- 3.png: " in (folder / "heads.md").read_text()
    assert {row["examples"] for row in rows(folder / "heads.csv") if not row["class"]} == {str(IMAGES - 1)}


def test_a_model_of_several_classes_at_once(data: Path, heads: Heads) -> None:
    assert heads(data, "--output", "results", model="multi").status == 0
    assert "mask-gradient, of the logit" in (data.parent / "results" / "heads.md").read_text()


def test_other_settings_need_another_folder(data: Path, heads: Heads) -> None:
    heads(data, "--output", "results")
    assert heads(data, "--scores", "entropy", "--output", "results").is_error("other settings: scores is")
    assert heads(data, "--output", data.parent).is_error("must be a new or empty folder")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--scores", "gmar-l1,taylor"], "Got 'taylor' instead"),
        (["--fill", "mean"], "--fill must go with --ablate"),
        (["--random", "3"], "--random must go with --ablate"),
        (["--random", "0", "--ablate"], "must be a whole number above zero"),
        (["--within-layers"], "--within-layers must go with --ablate"),
        (["--ablate"], "--ablate must go with --output RESULTS"),
        (["--ablate", "--limit", "1", "--output", "results"], "--ablate must go with two images or more"),
        (["--target", "dog"], "--target must be predicted, label, an index or a label. Got 'dog'"),
        (["--target", "4"], "--target must be from 0 to 3"),
        (["--seed", "-1"], "must be a whole number, zero or more"),
        (["--save-array", "all.csv"], "--save-array must end in one of .npz"),
        (["--output", "none/heads.png"], "no such folder to write heads.png to"),
        (["--size", "20"], "--size must be a multiple of the model's patch size"),
        (["--device", "cuda:7"], "CUDA devices"),
    ],
)
def test_bad_options(data: Path, heads: Heads, arguments: list[str], expected: str) -> None:
    assert heads(data, *arguments).is_error(expected)
    assert not list(data.parent.glob("*heads*"))


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("nan", "gmar-l1: "),
        ("resnet", "gmar-l1: Found no patch size"),
        ("one", "several classes"),
        ("none", "no such folder"),
    ],
)
def test_bad_models(data: Path, heads: Heads, model: str, expected: str) -> None:
    assert heads(data, "--ablate", "--output", "results", model=model).is_error(expected)


def test_bad_data(work: Path, heads: Heads) -> None:
    assert heads("none.png").is_error("none.png: no such file")
    assert heads("none.csv").is_error("none.csv: no such file or folder")
    assert heads("out").is_error("out: no image files in this folder")
    assert heads().is_error("give DATA and --model, or neither")
    assert heads("photo.png", "--target", "label").is_error("--target 'label' must go with data whose images all have")
    (work / "broken.png").write_bytes(b"no image")
    done = heads("broken.png")
    assert (done.status, done.out) == (2, "")
    assert "broken.png: not an image" in done.err
