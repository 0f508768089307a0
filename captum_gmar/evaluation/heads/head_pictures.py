"""The pictures of an evaluation of heads."""

from collections.abc import Mapping
from itertools import cycle
from math import ceil
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from captum_gmar.ablation import HeadAblationCurve, HeadStatistics
from captum_gmar.evaluation.heads.head_report import OUTCOME_TITLES, RANDOM, AblationCurves, no_spread
from captum_gmar.metrics._statistics import FEWEST
from captum_gmar.visualization.head_maps import (
    AXES_INCHES,
    CELL_WIDTH,
    SCALE_INCHES,
    SPREAD_HEIGHT,
    visualize_head_importance,
)
from captum_gmar.visualization.panels import draw_title, make_figure, show
from captum_gmar.visualization.style import COLOURS, DASHED, GREY

SIDE_BY_SIDE = 2  # scores
PANEL_WIDTH, PANEL_HEIGHT, LEGEND_ROW_INCHES = 3.6, 2.9, 0.22
ORDER_LINES = {"least": "solid", "most": DASHED}


def draw_importance(
    statistics: Mapping[str, HeadStatistics], units: Mapping[str, str], title: str, use_pyplot: bool
) -> tuple[Figure, list[Axes]]:
    """A panel for each score.

    Args:
        statistics: of each score.
        units: of each score.
        title: above the whole.
        use_pyplot: whether pyplot makes the figure and shows it.
    """
    layers, heads = next(iter(statistics.values())).mean.shape
    columns = min(len(statistics), SIDE_BY_SIDE)
    rows = ceil(len(statistics) / columns)
    width = max(heads * CELL_WIDTH, 3) + AXES_INCHES + SCALE_INCHES
    height = max(layers * SPREAD_HEIGHT, 2.4) + AXES_INCHES
    figure = make_figure(columns * width, rows * height + 0.5, use_pyplot, pad=0.1)
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    for panel, (name, of_score) in zip(panels, statistics.items(), strict=False):
        spread, axis = of_score.std if of_score.examples >= FEWEST else None, (figure, panel)
        visualize_head_importance(of_score.mean, spread=spread, label=units[name], plt_fig_axis=axis, use_pyplot=False)
        panel.set_title("\n".join(filter(None, [name, no_spread(of_score.examples)])), fontsize="medium")
    for panel in panels[len(statistics) :]:
        panel.remove()
    draw_title(figure, title)
    show(figure, use_pyplot)
    return figure, panels[: len(statistics)]


def draw_ablation(curves: AblationCurves, title: str | None, use_pyplot: bool) -> tuple[Figure, list[Axes]]:
    """A panel for each outcome, against the share of silent heads.

    Args:
        curves: of every order.
        title: above the whole.
        use_pyplot: whether pyplot makes the figure and shows it.
    """
    height = PANEL_HEIGHT + 0.6 + LEGEND_ROW_INCHES * ceil((len(curves) + 1) / 2)
    figure = make_figure(PANEL_WIDTH * len(OUTCOME_TITLES), height, use_pyplot)
    panels: Any = figure.subplots(1, len(OUTCOME_TITLES))
    for panel, (name, text) in zip(panels, OUTCOME_TITLES.items(), strict=True):
        _draw_outcome(panel, curves, name)
        panel.set_title(text, fontsize="medium")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False)
    draw_title(figure, title)
    show(figure, use_pyplot)
    return figure, list(panels)


def _draw_outcome(panel: Axes, curves: AblationCurves, name: str) -> None:
    """Of every order; the random ones as a band from the lowest to the highest."""
    means, silent = curves[RANDOM].order_means(name).numpy(), _percent(curves[RANDOM])
    panel.fill_between(silent, means.min(0), means.max(0), color=GREY, alpha=0.25, lw=0)
    label = f"{len(means)} random orders: mean, lowest to highest"
    panel.plot(silent, means.mean(0), color=GREY, linewidth=1.5, label=label)
    colours = dict(zip(dict.fromkeys(score for score, _ in curves if score != RANDOM[0]), cycle(COLOURS), strict=False))
    for (score, first), curve in curves.items():
        if score in colours:
            style: dict[str, Any] = {"color": colours[score], "linestyle": ORDER_LINES[first], "linewidth": 1.5}
            panel.plot(_percent(curve), curve.mean(name).numpy(), label=f"{score}, {first} first", **style)
    panel.set(xlabel="silent heads, %", xlim=(0, 100))
    panel.spines[["top", "right"]].set_visible(False)
    panel.grid(alpha=0.25)


def _percent(curve: HeadAblationCurve) -> Any:
    return 100 * np.asarray(curve.counts) / int(curve.counts[-1])
