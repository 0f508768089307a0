"""What was found out about the heads of a model: what is printed of it, its files, its pictures and its arrays."""

import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from captum_gmar.cli.outputs import writing
from captum_gmar.evaluation.batches import Skipped
from captum_gmar.evaluation.head_pictures import draw_ablation, draw_importance
from captum_gmar.evaluation.head_report import (
    FOLLOWED,
    RANDOM,
    Run,
    Silenced,
    images,
    importance_tables,
    to_markdown,
    write_ablation,
    write_heads,
)
from captum_gmar.evaluation.head_scores import Found, units
from captum_gmar.evaluation.subject import Subject, versions
from captum_gmar.evaluation.tables import write_skipped
from captum_gmar.files.writing import replacing, save_picture, write_text
from captum_gmar.heads import HeadStatistics


class Weighed(NamedTuple):
    """What was found out."""

    subject: Subject
    explained: str  # the class
    statistics: Mapping[str, HeadStatistics]  # of each score
    silenced: Silenced | None  # if asked for

    @property
    def examples(self) -> int:
        return next((own.examples for own in self.statistics.values()), 0)

    @property
    def title(self) -> str:
        return f"{Path(self.subject.model_name).name}, {Path(self.subject.data_name).name}"

    @property
    def units(self) -> dict[str, str]:
        return units(self.subject.classifier)


def save_importance(weighed: Weighed, picture: Path) -> None:
    """Writes the picture of the scores.

    Raises:
        CommandError: if it cannot be written.
    """
    title = f"{weighed.title}: heads, {images(weighed.examples)}"
    with writing(picture):
        save_picture(draw_importance(weighed.statistics, weighed.units, title), picture)


def tell(weighed: Weighed, picture: Path) -> str:
    """What was scored, and tables of the scores."""
    head = [weighed.subject.data_name, f"  explained  {weighed.explained}", f"  picture    {picture}", ""]
    return "\n".join([*head, importance_tables(weighed.statistics, weighed.units)])


def write_folder(weighed: Weighed, folder: Path, skipped: Sequence[Skipped]) -> None:
    """Writes tables, pictures and the report, which comes last."""
    write_heads(folder / "heads.csv", weighed.statistics)
    save_importance(weighed, folder / "heads.png")
    if weighed.silenced:
        write_ablation(folder / "ablation.csv", weighed.silenced.curves)
        title = f"{weighed.title}: heads silenced ({weighed.silenced.fill})"
        save_picture(draw_ablation(weighed.silenced.curves, title), folder / "ablation.png")
    write_skipped(folder / "skipped.csv", skipped)
    told = Run(
        model=weighed.subject.model_name,
        data=weighed.subject.data_name,
        explained=weighed.explained,
        command=shlex.join(["captum-gmar", *sys.argv[1:]]),
        versions=versions(),
        skipped=skipped,
    )
    write_text(folder / "heads.md", to_markdown(weighed.statistics, weighed.units, told, weighed.silenced))


def save_arrays(weighed: Weighed, found: Sequence[Found], tested: Sequence[Found], path: Path) -> None:
    """Writes what ``--save-array`` asks for.

    Raises:
        CommandError: if it cannot be written.
    """
    arrays = _score_arrays(weighed, found)
    if weighed.silenced:
        arrays |= {"tested": _names(weighed, tested), **_ablation_arrays(weighed.silenced)}
    with writing(path), replacing(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]


def _score_arrays(weighed: Weighed, found: Sequence[Found]) -> dict[str, npt.NDArray[Any]]:
    labels = weighed.subject.classifier.labels
    return {
        "image": _names(weighed, found),
        "target": np.array([own.target for own in found]),
        "label": np.array([labels[own.target] for own in found]),
        "score": np.array(list(weighed.statistics)),
        "importance": np.array([own.values for own in found], np.float32).swapaxes(0, 1),
    }


def _ablation_arrays(silenced: Silenced) -> dict[str, npt.NDArray[Any]]:
    curves = silenced.curves
    orders = [
        score if (score, first) == RANDOM else f"{score}, {first} first"
        for (score, first), curve in curves.items()
        for _ in curve.orders
    ]
    values = {name: torch.cat([getattr(curve, name) for curve in curves.values()]).numpy() for name in FOLLOWED}
    return {"silent": curves[RANDOM].counts.numpy(), "order": np.array(orders), **values}


def _names(weighed: Weighed, found: Sequence[Found]) -> npt.NDArray[Any]:
    return np.array([weighed.subject.examples[own.number].name for own in found])
