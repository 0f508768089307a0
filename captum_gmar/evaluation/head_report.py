"""``heads.md`` and its tables: what was found out about the heads of a model."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from captum_gmar.evaluation.batches import Skipped
from captum_gmar.evaluation.markdown import provenance, table
from captum_gmar.evaluation.statistics import Estimate, Quantity, summarise
from captum_gmar.evaluation.tables import DIGITS
from captum_gmar.files.writing import write_csv
from captum_gmar.heads import HeadAblationCurve, HeadStatistics
from captum_gmar.metrics.ranks import spearman

RANDOM = "random", "least"
FOLLOWED = {
    "accuracy": "accuracy: the target is predicted",
    "probability": "probability of the target",
    "logit": "logit of the target",
}

Curves = Mapping[tuple[str, str], HeadAblationCurve]


class Run(NamedTuple):
    """What the report says of how it was made."""

    model: str
    data: str
    explained: str
    command: str
    versions: Mapping[str, str]
    skipped: Sequence[Skipped]


class Silenced(NamedTuple):
    """What the report says of an ablation."""

    curves: Curves
    ranked_by: int  # examples
    fill: str
    within_layers: bool


def importance_tables(statistics: Mapping[str, HeadStatistics], units: Mapping[str, str]) -> str:
    """Of each score, a table of layers and heads."""
    parts = []
    for name, own in statistics.items():
        heads = [f"head {head}" for head in range(own.mean.shape[1])]
        spread = "" if own.examples == 1 else " ± standard deviation over the images"
        parts += [f"## {name}, {units[name]}{spread}", table(["layer", *heads], _cells(own))]
    return "\n\n".join(parts)


def to_markdown(
    statistics: Mapping[str, HeadStatistics],
    units: Mapping[str, str],
    run: Run,
    silenced: Silenced | None = None,
) -> str:
    """The report."""
    examples = next(iter(statistics.values())).examples
    parts = [_head(run, examples), importance_tables(statistics, units)]
    if len(statistics) > 1:
        parts += ["## Do the scores agree? Spearman's rank correlation over all heads", _agreement(statistics)]
    if silenced:
        parts.append(_ablation(silenced))
    if run.skipped:
        parts += ["## Left out", "\n".join(f"- {own.name}: {own.reason}" for own in run.skipped)]
    return "\n\n".join(parts) + "\n"


def write_heads(path: Path, statistics: Mapping[str, HeadStatistics]) -> None:
    """Mean and standard deviation of every head: over all examples (class empty), then over those of each class."""
    rows = (
        (name, row["layer"], row["head"], row["class"], *_numbers(row["mean"], row["std"]), row["examples"])
        for name, own in statistics.items()
        for row in own.records()
    )
    write_csv(path, ["score", "layer", "head", "class", "mean", "std", "examples"], rows)


def write_ablation(path: Path, curves: Curves) -> None:
    """See :meth:`captum_gmar.heads.HeadAblationCurve.records`; lowest and highest are of the random orders."""
    columns = ("mean", "margin", "lowest", "highest")
    rows = (
        (score, _first(score, first), row["silent"], row["name"], *_numbers(*(row[name] for name in columns)), *last)
        for (score, first), curve in curves.items()
        for row in curve.records()
        for last in [(row["orders"], row["examples"])]
    )
    write_csv(path, ["score", "first", "silent", "what", *columns, "orders", "examples"], rows)


def images(count: int) -> str:
    return f"{count} image{'' if count == 1 else 's'}"


def _head(run: Run, examples: int) -> str:
    data = f"{run.data}, {images(examples)}"
    told = provenance(run.model, data, run.explained, run.command, run.versions)
    return "\n".join(["# Attention heads", "", *told])


def _cells(statistics: HeadStatistics) -> Iterator[Sequence[str]]:
    for layer, (means, stds) in enumerate(zip(statistics.mean.tolist(), statistics.std.tolist(), strict=True)):
        pairs = zip(means, stds, strict=True)
        yield [str(layer), *(f"{mean:.3g}" + ("" if std != std else f" ± {std:.2g}") for mean, std in pairs)]


def _agreement(statistics: Mapping[str, HeadStatistics]) -> str:
    means = torch.stack([own.mean.flatten() for own in statistics.values()])
    rows = [
        [name, *(f"{value:.2f}" for value in spearman(own.expand_as(means), means).tolist())]
        for name, own in zip(statistics, means, strict=True)
    ]
    return table(["", *statistics], rows)


def _ablation(silenced: Silenced) -> str:
    curves = silenced.curves
    random = curves[RANDOM]
    orders, _, examples = random.accuracy.shape
    within = " within their layers" if silenced.within_layers else " over all layers"
    text = (
        f"Heads are ranked{within} by the scores on {images(silenced.ranked_by)}, and silenced ({silenced.fill}) in "
        f"that order on {examples} others, {int(random.counts[-1])} heads in all. Areas are means over all shares of "
        "silent heads, with 95 % bootstrap intervals over the images; differences are taken image by image, from the "
        f"mean of {orders} random orders. A score that finds the heads that matter gives a higher area than random "
        "orders with the least important heads first, and a lower one with the most important first. Intervals over "
        "images do not say how random orders vary: the last column does."
    )
    parts = ["## Do the scores mean anything? Heads silenced", text]
    for name, title in FOLLOWED.items():
        parts += [f"### {title.capitalize()}", _areas(curves, name)]
    return "\n\n".join(parts)


def _areas(curves: Curves, name: str) -> str:
    """A row for each order, and for each score its two orders against each other."""
    of_orders = {key: curve.areas(name) for key, curve in curves.items()}
    values = {key: own.mean(0) for key, own in of_orders.items()}
    random = of_orders[RANDOM].mean(1)
    rows = []
    for score in dict.fromkeys(score for score, _ in curves if score != RANDOM[0]):
        for first, arrow in (("least", "↑"), ("most", "↓")):
            own = values[score, first]
            mean = float(own.mean())
            as_good = int((random >= mean if first == "least" else random <= mean).sum())
            area, difference = _estimate(own), _estimate(own - values[RANDOM])
            rows.append([f"{score}, {first} first {arrow}", str(area), str(difference), f"{as_good} of {len(random)}"])
        between = _estimate(values[score, "least"] - values[score, "most"])
        rows.append([f"{score}, least less most first ↑", str(between), "", ""])
    spread = f"orders from {float(random.min()):.3f} to {float(random.max()):.3f}"
    rows.append(["random", f"{_estimate(values[RANDOM])}, {spread}", "", ""])
    return table(["order", "area", "less random's", "random orders as good"], rows)


def _estimate(values: Tensor) -> Estimate:
    return summarise(Quantity("", ""), {"": values.tolist()}).means[0]


def _numbers(*values: float) -> list[str]:
    """Empty where there is none."""
    return ["" if value != value else format(value, DIGITS) for value in values]


def _first(score: str, first: str) -> str:
    return "random" if score == RANDOM[0] else first
