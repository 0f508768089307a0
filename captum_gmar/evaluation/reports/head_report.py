"""The results of an evaluation of heads: tables, report and pictures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import Tensor

from captum_gmar.ablation import HeadAblationCurve, HeadStatistics
from captum_gmar.evaluation.reports.evaluation_result import Report
from captum_gmar.evaluation.reports.report import Records, skipped_list
from captum_gmar.evaluation.reports.statistics import mean_interval
from captum_gmar.evaluation.runs.batches import Skipped
from captum_gmar.evaluation.runs.progress import count
from captum_gmar.files.markdown import table
from captum_gmar.metrics._statistics import FEWEST, spearman

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

RANDOM = "random", "random"  # key of the random orders' curve
OUTCOME_TITLES = {
    "accuracy": "accuracy: the target is predicted",
    "probability": "probability of the target",
    "logit": "logit of the target",
}
SILENCED = """## Do the scores mean anything? Heads silenced

Heads are ranked over all layers by the scores on {ranked_by}, and silenced (zero in place of their outputs) in that \
order on {examples} others, {heads} heads in all. Areas are means over all shares of silent heads; differences are \
taken image by image, from the mean of {orders} random orders. A score that finds the heads that matter gives a higher \
area than random orders with the least important heads first, and a lower one with the most important first."""
INTERVALS = (
    "In brackets stand 95 % bootstrap intervals over the images, which do not say how random orders vary: the last "
    "column does."
)
FEW_IMAGES = f"Fewer than {FEWEST} images show neither an interval nor which order is better."

AblationCurves: TypeAlias = Mapping[tuple[str, str], HeadAblationCurve]
"""Curves by the score that gave the order, and by the heads that went first."""


@dataclass(frozen=True, eq=False, repr=False)
class AblationResult(Report):
    """Predictions as heads are silenced in the order of each score, on other images than those that ranked them."""

    curves: AblationCurves  # from (score, "least" or "most") and RANDOM, whose curve holds all random orders
    ranked_by: int  # number of images that gave the scores
    images: tuple[str, ...]  # names of the others, in the order of the curves' examples
    title: str = ""  # of pictures

    def records(self) -> Records:
        """Return rows for ``pandas.DataFrame``: of :meth:`HeadAblationCurve.records` with the keys score and first."""
        rows = ((key, row) for key, curve in self.curves.items() for row in curve.records())
        return [{"score": score, "first": first, **row} for (score, first), row in rows]

    def to_markdown(self) -> str:
        """Return the areas below the curves, with intervals, and their differences from those of random orders."""
        random = self.curves[RANDOM]
        orders, _, examples = random.accuracy.shape
        text = SILENCED.format(
            ranked_by=count(self.ranked_by), examples=examples, heads=int(random.counts[-1]), orders=orders
        )
        parts = [f"{text} {FEW_IMAGES if examples < FEWEST else INTERVALS}"]
        for name, title in OUTCOME_TITLES.items():
            parts += [f"### {title.capitalize()}", _area_table(self.curves, name)]
        return "\n\n".join(parts)

    def visualize(self, *, title: str | None = None, use_pyplot: bool = True) -> "tuple[Figure, list[Axes]]":
        """Plot accuracy, probability and logit as heads are silenced; return the figure and a panel for each.

        ``title`` stands in place of the names of model and data; with ``use_pyplot`` pyplot makes and shows the figure.
        """
        from captum_gmar.visualization._panels import draw_title, make_figure, show

        height = 3.5 + 0.22 * ceil((len(self.curves) + 1) / 2)  # of a panel and of the legend's rows
        figure = make_figure(3.6 * len(OUTCOME_TITLES), height, use_pyplot)
        panels: Any = figure.subplots(1, len(OUTCOME_TITLES))
        for panel, (name, text) in zip(panels, OUTCOME_TITLES.items(), strict=True):
            _plot_outcome(panel, self.curves, name)
            panel.set_title(text, fontsize="medium")
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False)
        draw_title(figure, title or self.title)
        show(figure, use_pyplot)
        return figure, list(panels)


@dataclass(frozen=True, eq=False, repr=False)
class HeadResults(Report):
    """The result of :func:`captum_gmar.evaluate_heads`. A notebook shows it as its tables; so does ``print``."""

    model: str
    data: str
    explained: str  # class that the scores explain, in words
    statistics: Mapping[str, HeadStatistics]  # of each score, with the scores of every image
    units: Mapping[str, str]  # of the scores
    images: tuple[str, ...]  # names, in the order of the statistics' examples
    ablation: AblationResult | None = None  # predictions without heads, where requested
    skipped: tuple[Skipped, ...] = ()  # images that had to be left out, each with **name** and **reason**
    provenance: tuple[str, ...] = ()  # lines on the origin of the results

    def records(self) -> Records:
        """Return rows for ``pandas.DataFrame``: those of :meth:`HeadStatistics.records` with the key score."""
        return [{"score": name, **row} for name, statistics in self.statistics.items() for row in statistics.records()]

    def to_markdown(self) -> str:
        """Return the whole report: a table of layers and heads for each score, how they agree, and the ablation."""
        parts = ["# Attention heads", "\n".join(self.provenance), self.tables()]
        if len(self.statistics) > 1:
            parts += ["## Do the scores agree? Spearman's rank correlation over all heads", _agreement(self.statistics)]
        if self.ablation:
            parts.append(self.ablation.to_markdown())
        if self.skipped:
            parts += ["## Left out", skipped_list(self.skipped)]
        return "\n\n".join(parts) + "\n"

    def tables(self) -> str:
        """Return a Markdown table of layers and heads for each score."""
        parts = []
        for name, statistics in self.statistics.items():
            spread = " ± standard deviation over the images" if statistics.examples >= FEWEST else ""
            heads = [f"head {head}" for head in range(statistics.mean.shape[1])]
            parts += [f"## {name}, {self.units[name]}{spread}", _missing_spread(statistics)]
            parts += [table(["layer", *heads], _layer_rows(statistics))]
        return "\n\n".join(filter(None, parts))

    def visualize(self, *, title: str | None = None, use_pyplot: bool = True) -> "tuple[Figure, list[Axes]]":
        """Plot the mean of each score, a panel of layers and heads, with its standard deviation over the images.

        ``title`` stands in place of the names of model and data; with ``use_pyplot`` pyplot makes and shows the figure.
        """
        from captum_gmar.visualization._panels import draw_title, make_figure, show
        from captum_gmar.visualization.heads import CELL_WIDTH, SPREAD_HEIGHT, visualize_head_importance

        layers, heads = next(iter(self.statistics.values())).mean.shape
        columns = min(len(self.statistics), 2)
        rows = ceil(len(self.statistics) / columns)
        width, height = max(heads * CELL_WIDTH, 3.6) + 0.8, max(layers * SPREAD_HEIGHT, 2.4) + 1.6  # with names
        figure = make_figure(columns * width, rows * height + 0.5, use_pyplot, pad=0.1)
        panels = list(figure.subplots(rows, columns, squeeze=False).flat)
        for panel in panels[len(self.statistics) :]:
            panel.remove()
        for panel, (name, scores) in zip(panels, self.statistics.items(), strict=False):
            options: dict[str, Any] = {"spread": scores.std if scores.examples >= FEWEST else None}
            options |= {"label": self.units[name], "plt_fig_axis": (figure, panel), "use_pyplot": False}
            visualize_head_importance(scores.mean, **options)
            panel.set_title("\n".join(filter(None, [name, _missing_spread(scores)])), fontsize="medium")
        draw_title(figure, title or f"{short_title(self.model, self.data)}: heads, {count(len(self.images))}")
        show(figure, use_pyplot)
        return figure, panels[: len(self.statistics)]


def short_title(model: str, data: str) -> str:
    """Return the names of model and data without their folders."""
    return f"{Path(model).name}, {Path(data).name}"


def write_heads(results: HeadResults, folder: Path) -> None:
    """Write tables, pictures and, last, the report. Other files of an earlier report are removed."""
    from captum_gmar.evaluation.reports.report_files import write_tables
    from captum_gmar.files.writing import save_picture, write_text

    ablation = results.ablation
    tables = {"heads": results.records(), "ablation": ablation.records() if ablation else []}
    write_tables(folder, {**tables, "skipped": [skip._asdict() for skip in results.skipped]})
    save_picture(results.visualize(use_pyplot=False)[0], folder / "heads.png")
    if ablation:
        save_picture(ablation.visualize(use_pyplot=False)[0], folder / "ablation.png")
    else:
        (folder / "ablation.png").unlink(missing_ok=True)
    write_text(folder / "heads.md", results.to_markdown())


def _missing_spread(statistics: HeadStatistics) -> str:
    """Return why the mean of several images has no ±; nothing where it has, and of one image."""
    examples = statistics.examples
    return f"Mean of {examples} images; fewer than {FEWEST} show no spread." if 1 < examples < FEWEST else ""


def _layer_rows(statistics: HeadStatistics) -> list[list[str]]:
    def cell(mean: float, std: float) -> str:
        return f"{mean:.3g} ± {std:.2g}" if statistics.examples >= FEWEST else f"{mean:.3g}"

    layers = enumerate(zip(statistics.mean.tolist(), statistics.std.tolist(), strict=True))
    return [[str(layer), *map(cell, *each)] for layer, each in layers]


def _agreement(statistics: Mapping[str, HeadStatistics]) -> str:
    means = torch.stack([score.mean.flatten() for score in statistics.values()])
    rows = (
        [name, *(f"{value:.2f}" for value in spearman(mean.expand_as(means), means).tolist())]
        for name, mean in zip(statistics, means, strict=True)
    )
    return table(["", *statistics], rows)


def _score_names(curves: AblationCurves) -> Sequence[str]:
    return list(dict.fromkeys(score for score, _ in curves if score != RANDOM[0]))


def _area_table(curves: AblationCurves, name: str) -> str:
    """Return a row for each order, and for each score its two orders against each other."""
    order_areas = {key: curve.areas(name) for key, curve in curves.items()}  # (orders, examples)
    areas = {key: values.mean(0) for key, values in order_areas.items()}
    random = order_areas[RANDOM].mean(1)
    rows = []
    for score in _score_names(curves):
        for first, arrow in (("least", "↑"), ("most", "↓")):
            area = areas[score, first]
            ranked_alike = random >= area.mean() if first == "least" else random <= area.mean()
            ranked = f"{int(ranked_alike.sum())} of {len(random)}" if len(area) >= FEWEST else ""
            cells = _interval_text(area), _interval_text(area - areas[RANDOM]), ranked
            rows.append([f"{score}, {first} first {arrow}", *cells])
        gap = _interval_text(areas[score, "least"] - areas[score, "most"])
        rows.append([f"{score}, least less most first ↑", gap, "", ""])
    spread = f"orders from {float(random.min()):.3f} to {float(random.max()):.3f}"
    rows.append(["random", f"{_interval_text(areas[RANDOM])}, {spread}", "", ""])
    return table(["order", "area", "less random's", "random orders as good"], rows)


def _interval_text(values: Tensor) -> str:
    return str(mean_interval(values.tolist()))


def _plot_outcome(panel: "Axes", curves: AblationCurves, name: str) -> None:
    """Plot every order against the share of silent heads; the random ones as a band from the lowest to the highest."""
    from captum_gmar.visualization._style import COLOURS, DASHED, GREY

    shares = 100 * curves[RANDOM].counts.numpy() / int(curves[RANDOM].counts[-1])
    means = curves[RANDOM].order_means(name).numpy()
    panel.fill_between(shares, means.min(0), means.max(0), color=GREY, alpha=0.25, lw=0)
    label = f"{len(means)} random orders: mean, lowest to highest"
    panel.plot(shares, means.mean(0), color=GREY, linewidth=1.5, label=label)
    for score, colour in zip(_score_names(curves), cycle(COLOURS), strict=False):
        for first, line in (("least", "solid"), ("most", DASHED)):
            style: dict[str, Any] = {"color": colour, "linestyle": line, "linewidth": 1.5}
            panel.plot(shares, curves[score, first].mean(name).numpy(), label=f"{score}, {first} first", **style)
    panel.set(xlabel="silent heads, %", xlim=(0, 100))
    panel.spines[["top", "right"]].set_visible(False)
    panel.grid(alpha=0.25)
