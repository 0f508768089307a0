"""The report of an evaluation of heads, ``heads.md``."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TypeAlias

import torch
from torch import Tensor

from captum_gmar.ablation import HeadAblationCurve, HeadStatistics
from captum_gmar.evaluation.reports.statistics import mean_interval
from captum_gmar.evaluation.runs.batches import Skipped
from captum_gmar.evaluation.runs.progress import count
from captum_gmar.files.markdown import table
from captum_gmar.metrics._statistics import FEWEST, spearman

RANDOM = "random", "random"  # the key of the random orders' curve
OUTCOME_TITLES = {
    "accuracy": "accuracy: the target is predicted",
    "probability": "probability of the target",
    "logit": "logit of the target",
}
INTERVALS = (
    "In brackets stand 95 % bootstrap intervals over the images, which do not say how random orders vary: the last "
    "column does."
)
FEW_IMAGES = f"Fewer than {FEWEST} images show neither an interval nor which order is better."

AblationCurves: TypeAlias = Mapping[tuple[str, str], HeadAblationCurve]
"""From the score that gave the order, and which heads went first."""


def heads_report(
    statistics: Mapping[str, HeadStatistics],
    units: Mapping[str, str],
    provenance: Iterable[str],
    ablation: str | None,
    skipped: Iterable[Skipped],
) -> str:
    """All of ``heads.md``.

    Args:
        statistics: of each score.
        units: of each score.
        provenance: lines that say how the results came about.
        ablation: what :func:`ablation_section` gives, if heads were silenced.
        skipped: images that were left out.
    """
    parts = ["# Attention heads", "\n".join(provenance), importance_tables(statistics, units)]
    if len(statistics) > 1:
        parts += ["## Do the scores agree? Spearman's rank correlation over all heads", _agreement(statistics)]
    if ablation:
        parts.append(ablation)
    left_out = [f"- {example.name}: {example.reason}" for example in skipped]
    if left_out:
        parts += ["## Left out", "\n".join(left_out)]
    return "\n\n".join(filter(None, parts)) + "\n"


def importance_tables(statistics: Mapping[str, HeadStatistics], units: Mapping[str, str]) -> str:
    """Of each score, a table of layers and heads."""
    parts = []
    for name, of_score in statistics.items():
        heads = [f"head {head}" for head in range(of_score.mean.shape[1])]
        spread = " ± standard deviation over the images" if of_score.examples >= FEWEST else ""
        parts += [f"## {name}, {units[name]}{spread}", no_spread(of_score.examples)]
        parts += [table(["layer", *heads], _layers(of_score))]
    return "\n\n".join(filter(None, parts))


def no_spread(examples: int) -> str:
    """Return why the mean of several images has no ±; nothing where it has, and of one image."""
    return f"Mean of {examples} images; fewer than {FEWEST} show no spread." if 1 < examples < FEWEST else ""


def ablation_section(curves: AblationCurves, ranked_by: int) -> str:
    """What became of the predictions as heads were silenced.

    Args:
        curves: of every order.
        ranked_by: how many images gave the scores.
    """
    random = curves[RANDOM]
    orders, _, examples = random.accuracy.shape
    text = [
        f"Heads are ranked over all layers by the scores on {count(ranked_by)}, and silenced (zero in place of "
        f"their outputs) in that order on {examples} others, {int(random.counts[-1])} heads in all. Areas are means "
        "over all shares of silent heads; differences are taken image "
        f"by image, from the mean of {orders} random orders. A score that finds the heads that matter gives a higher "
        "area than random orders with the least important heads first, and a lower one with the most important first.",
        FEW_IMAGES if examples < FEWEST else INTERVALS,
    ]
    parts = ["## Do the scores mean anything? Heads silenced", " ".join(text)]
    for name, title in OUTCOME_TITLES.items():
        parts += [f"### {title.capitalize()}", _areas(curves, name)]
    return "\n\n".join(parts)


def _layers(statistics: HeadStatistics) -> Iterator[Sequence[str]]:
    for layer, (means, stds) in enumerate(zip(statistics.mean.tolist(), statistics.std.tolist(), strict=True)):
        spreads = (f" ± {std:.2g}" if statistics.examples >= FEWEST else "" for std in stds)
        yield [str(layer), *(f"{mean:.3g}{spread}" for mean, spread in zip(means, spreads, strict=True))]


def _agreement(statistics: Mapping[str, HeadStatistics]) -> str:
    means = torch.stack([of_score.mean.flatten() for of_score in statistics.values()])
    rows = [
        [name, *(f"{value:.2f}" for value in spearman(mean.expand_as(means), means).tolist())]
        for name, mean in zip(statistics, means, strict=True)
    ]
    return table(["", *statistics], rows)


def _areas(curves: AblationCurves, name: str) -> str:
    """A row for each order, and for each score its two orders against each other."""
    by_order = {key: curve.areas(name) for key, curve in curves.items()}  # (orders, examples)
    areas = {key: values.mean(0) for key, values in by_order.items()}
    random = by_order[RANDOM].mean(1)
    rows = []
    for score in dict.fromkeys(score for score, _ in curves if score != RANDOM[0]):
        for first, arrow in (("least", "↑"), ("most", "↓")):
            area = areas[score, first]
            as_good = random >= area.mean() if first == "least" else random <= area.mean()
            told = f"{int(as_good.sum())} of {len(random)}" if len(area) >= FEWEST else ""
            cells = _interval_text(area), _interval_text(area - areas[RANDOM]), told
            rows.append([f"{score}, {first} first {arrow}", *cells])
        between = _interval_text(areas[score, "least"] - areas[score, "most"])
        rows.append([f"{score}, least less most first ↑", between, "", ""])
    spread = f"orders from {float(random.min()):.3f} to {float(random.max()):.3f}"
    rows.append(["random", f"{_interval_text(areas[RANDOM])}, {spread}", "", ""])
    return table(["order", "area", "less random's", "random orders as good"], rows)


def _interval_text(values: Tensor) -> str:
    return str(mean_interval(values.tolist()))
