"""The results of an evaluation of heads: tables, report and pictures."""

from collections.abc import Mapping
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
INTERVALS = (
    "In brackets stand 95 % bootstrap intervals over the images, which do not say how random orders vary: the last "
    "column does."
)
FEW_IMAGES = f"Fewer than {FEWEST} images show neither an interval nor which order is better."
AXES_INCHES = 0.8  # numbers and names beside and below the cells
PANELS_IN_A_ROW = 2
PANEL_WIDTH, PANEL_HEIGHT, LEGEND_ROW_INCHES = 3.6, 2.9, 0.22

AblationCurves: TypeAlias = Mapping[tuple[str, str], HeadAblationCurve]
"""Curves by the score that gave the order, and by the heads that went first."""


@dataclass(frozen=True, eq=False, repr=False)
class AblationResult(Report):
    """Predictions as heads are silenced in the order of each score, on other images than those that ranked them.

    Attributes:
        curves: From (score, which heads go first), "least" or "most", and from ("random", "random"), to the result of
            :func:`captum_gmar.ablation.head_ablation_curve`; that of the random orders holds all of them.
        ranked_by: Number of images that gave the scores.
        images: Names of the others, which predictions were made for, in the order of the curves' examples.
        title: Title of pictures.
    """

    curves: AblationCurves
    ranked_by: int
    images: tuple[str, ...]
    title: str = ""

    def records(self) -> Records:
        """Return rows for ``pandas.DataFrame``: of :meth:`HeadAblationCurve.records` with the keys score and first."""
        return [
            {"score": score, "first": first, **row}
            for (score, first), curve in self.curves.items()
            for row in curve.records()
        ]

    def to_markdown(self) -> str:
        """Return the areas below the curves, with intervals, and their differences from those of random orders."""
        random = self.curves[RANDOM]
        orders, _, examples = random.accuracy.shape
        text = (
            f"Heads are ranked over all layers by the scores on {count(self.ranked_by)}, and silenced (zero in place "
            f"of their outputs) in that order on {examples} others, {int(random.counts[-1])} heads in all. Areas are "
            "means over all shares of silent heads; differences are taken image by image, from the mean of "
            f"{orders} random orders. A score that finds the heads that matter gives a higher area than random orders "
            "with the least important heads first, and a lower one with the most important first. "
            f"{FEW_IMAGES if examples < FEWEST else INTERVALS}"
        )
        parts = ["## Do the scores mean anything? Heads silenced", text]
        for name, title in OUTCOME_TITLES.items():
            parts += [f"### {title.capitalize()}", _area_table(self.curves, name)]
        return "\n\n".join(parts)

    def visualize(self, *, title: str | None = None, use_pyplot: bool = True) -> "tuple[Figure, list[Axes]]":
        """Plot accuracy, probability and logit as heads are silenced, a panel for each.

        Args:
            title (str, optional): Above the whole.
                Default: None, the names of model and data
            use_pyplot (bool, optional): As in Captum: whether to make the figure with pyplot and show it.

        Returns:
            2-element tuple of **figure**, **axes**:
            - **figure** (*matplotlib.figure.Figure*)
            - **axes** (*list of matplotlib.axes.Axes*): of accuracy, probability and logit.
        """
        from captum_gmar.visualization._panels import draw_title, make_figure, show

        height = PANEL_HEIGHT + 0.6 + LEGEND_ROW_INCHES * ceil((len(self.curves) + 1) / 2)
        figure = make_figure(PANEL_WIDTH * len(OUTCOME_TITLES), height, use_pyplot)
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
    """The result of :func:`captum_gmar.evaluate_heads`. A notebook shows it as its tables; so does ``print``.

    Attributes:
        model: Name of the model.
        data: Name of the data.
        explained: Class that the scores explain, in words.
        statistics: From the name of each score to its :class:`captum_gmar.ablation.HeadStatistics`, which hold the
            scores of every image, and rank heads.
        units: Units of the scores, by name.
        images: Names of the images, in the order of the statistics' examples.
        ablation: Predictions without heads, where requested.
        skipped: Images that had to be left out, each with **name** and **reason**.
        provenance: Lines on the origin of the results.
    """

    model: str
    data: str
    explained: str
    statistics: Mapping[str, HeadStatistics]
    units: Mapping[str, str]
    images: tuple[str, ...]
    ablation: AblationResult | None = None
    skipped: tuple[Skipped, ...] = ()
    provenance: tuple[str, ...] = ()

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
            heads = [f"head {head}" for head in range(statistics.mean.shape[1])]
            spread = " ± standard deviation over the images" if statistics.examples >= FEWEST else ""
            parts += [f"## {name}, {self.units[name]}{spread}", _missing_spread(statistics)]
            parts += [table(["layer", *heads], _layer_rows(statistics))]
        return "\n\n".join(filter(None, parts))

    def visualize(self, *, title: str | None = None, use_pyplot: bool = True) -> "tuple[Figure, list[Axes]]":
        """Plot the mean of each score, a panel of layers and heads, with its standard deviation over the images.

        Args:
            title (str, optional): Above the whole.
                Default: None, the names of model and data, and how many images
            use_pyplot (bool, optional): As in Captum: whether to make the figure with pyplot and show it.

        Returns:
            2-element tuple of **figure**, **axes**:
            - **figure** (*matplotlib.figure.Figure*)
            - **axes** (*list of matplotlib.axes.Axes*): of each score.
        """
        from captum_gmar.visualization._panels import draw_title, make_figure, show
        from captum_gmar.visualization.heads import CELL_WIDTH, SPREAD_HEIGHT, visualize_head_importance

        layers, heads = next(iter(self.statistics.values())).mean.shape
        columns = min(len(self.statistics), PANELS_IN_A_ROW)
        rows = ceil(len(self.statistics) / columns)
        width = max(heads * CELL_WIDTH, 3.6) + AXES_INCHES
        height = max(layers * SPREAD_HEIGHT, 2.4) + 2 * AXES_INCHES
        figure = make_figure(columns * width, rows * height + 0.5, use_pyplot, pad=0.1)
        panels = list(figure.subplots(rows, columns, squeeze=False).flat)
        for panel, (name, statistics) in zip(panels, self.statistics.items(), strict=False):
            spread = statistics.std if statistics.examples >= FEWEST else None
            visualize_head_importance(
                statistics.mean, spread=spread, label=self.units[name], plt_fig_axis=(figure, panel), use_pyplot=False
            )
            panel.set_title("\n".join(filter(None, [name, _missing_spread(statistics)])), fontsize="medium")
        for panel in panels[len(self.statistics) :]:
            panel.remove()
        draw_title(figure, title or self.title)
        show(figure, use_pyplot)
        return figure, panels[: len(self.statistics)]

    @property
    def title(self) -> str:
        """Title of pictures: model, data and number of images."""
        return f"{short_title(self.model, self.data)}: heads, {count(len(self.images))}"


def short_title(model: str, data: str) -> str:
    """Return the names of model and data without their folders."""
    return f"{Path(model).name}, {Path(data).name}"


def write_heads(results: HeadResults, folder: Path) -> None:
    """Write tables, pictures and, last, the report. Files of an earlier report that this one does not have are removed.

    Raises:
        OSError: if they cannot be written; those that were there are whole.
    """
    from captum_gmar.evaluation.reports.report_files import write_tables
    from captum_gmar.files.writing import save_picture, write_text

    ablation = results.ablation
    tables = {"heads": results.records(), "ablation": ablation.records() if ablation else []}
    numbers = {name: [_without_nan(row) for row in rows] for name, rows in tables.items()}
    write_tables(folder, {**numbers, "skipped": [skip._asdict() for skip in results.skipped]})
    save_picture(results.visualize(use_pyplot=False)[0], folder / "heads.png")
    if ablation:
        save_picture(ablation.visualize(use_pyplot=False)[0], folder / "ablation.png")
    else:
        (folder / "ablation.png").unlink(missing_ok=True)
    write_text(folder / "heads.md", results.to_markdown())


def _without_nan(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the row with empty cells where there is no number."""
    return {name: None if value != value else value for name, value in row.items()}


def _missing_spread(statistics: HeadStatistics) -> str:
    """Return why the mean of several images has no ±; nothing where it has, and of one image."""
    examples = statistics.examples
    return f"Mean of {examples} images; fewer than {FEWEST} show no spread." if 1 < examples < FEWEST else ""


def _layer_rows(statistics: HeadStatistics) -> list[list[str]]:
    has_spread = statistics.examples >= FEWEST
    layers = zip(statistics.mean.tolist(), statistics.std.tolist(), strict=True)
    return [
        [str(layer), *(f"{mean:.3g}" + f" ± {std:.2g}" * has_spread for mean, std in zip(means, stds, strict=True))]
        for layer, (means, stds) in enumerate(layers)
    ]


def _agreement(statistics: Mapping[str, HeadStatistics]) -> str:
    means = torch.stack([score.mean.flatten() for score in statistics.values()])
    rows = [
        [name, *(f"{value:.2f}" for value in spearman(mean.expand_as(means), means).tolist())]
        for name, mean in zip(statistics, means, strict=True)
    ]
    return table(["", *statistics], rows)


def _area_table(curves: AblationCurves, name: str) -> str:
    """Return a row for each order, and for each score its two orders against each other."""
    order_areas = {key: curve.areas(name) for key, curve in curves.items()}  # (orders, examples)
    areas = {key: values.mean(0) for key, values in order_areas.items()}
    random = order_areas[RANDOM].mean(1)
    rows = []
    for score in dict.fromkeys(score for score, _ in curves if score != RANDOM[0]):
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

    shares = {key: 100 * curve.counts.numpy() / int(curve.counts[-1]) for key, curve in curves.items()}
    means = curves[RANDOM].order_means(name).numpy()
    panel.fill_between(shares[RANDOM], means.min(0), means.max(0), color=GREY, alpha=0.25, lw=0)
    label = f"{len(means)} random orders: mean, lowest to highest"
    panel.plot(shares[RANDOM], means.mean(0), color=GREY, linewidth=1.5, label=label)
    colours = dict(zip(dict.fromkeys(score for score, _ in curves if score != RANDOM[0]), cycle(COLOURS), strict=False))
    for (score, first), curve in curves.items():
        if score in colours:
            style: dict[str, Any] = {"color": colours[score], "linestyle": "solid" if first == "least" else DASHED}
            mean = curve.mean(name).numpy()
            panel.plot(shares[score, first], mean, label=f"{score}, {first} first", linewidth=1.5, **style)
    panel.set(xlabel="silent heads, %", xlim=(0, 100))
    panel.spines[["top", "right"]].set_visible(False)
    panel.grid(alpha=0.25)
