"""The pictures of what was found out about heads."""

from collections.abc import Mapping
from math import ceil
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from captum_gmar.evaluation.head_report import FOLLOWED, RANDOM, Curves
from captum_gmar.heads import HeadAblationCurve, HeadStatistics
from captum_gmar.visualization.heads import (
    AXES_INCHES,
    BAR_INCHES,
    CELL_WIDTH,
    SPREAD_HEIGHT,
    visualize_head_importance,
)
from captum_gmar.visualization.panels import draw_title, make_figure
from captum_gmar.visualization.style import COLOURS, GREY

SIDE_BY_SIDE = 2  # scores
PANEL_WIDTH, PANEL_HEIGHT, LEGEND_ROW_INCHES = 3.6, 2.9, 0.22
STYLES = {"least": "solid", "most": (0, (4, 1.5))}


def draw_importance(statistics: Mapping[str, HeadStatistics], units: Mapping[str, str], title: str) -> Figure:
    """A panel for each score."""
    layers, heads = next(iter(statistics.values())).mean.shape
    columns = min(len(statistics), SIDE_BY_SIDE)
    rows = ceil(len(statistics) / columns)
    width = max(heads * CELL_WIDTH, 3) + AXES_INCHES + BAR_INCHES
    height = max(layers * SPREAD_HEIGHT, 2.4) + AXES_INCHES
    figure = make_figure(columns * width, rows * height + 0.5, use_pyplot=False, pad=0.1)
    panels: Any = figure.subplots(rows, columns, squeeze=False)
    for panel, (name, own) in zip(panels.flat, statistics.items(), strict=False):
        spread, axis = own.std if own.examples > 1 else None, (figure, panel)
        visualize_head_importance(own.mean, spread=spread, label=units[name], plt_fig_axis=axis, use_pyplot=False)
        panel.set_title(name, fontsize="medium")
    for panel in panels.flat[len(statistics) :]:
        panel.remove()
    draw_title(figure, title)
    return figure


def draw_ablation(curves: Curves, title: str) -> Figure:
    """A panel for each thing that is followed, against the share of silent heads."""
    height = PANEL_HEIGHT + 0.6 + LEGEND_ROW_INCHES * ceil((len(curves) + 1) / 2)
    figure = Figure(figsize=(PANEL_WIDTH * len(FOLLOWED), height), layout="constrained")
    panels: Any = figure.subplots(1, len(FOLLOWED))
    colours = dict(zip(dict.fromkeys(score for score, _ in curves if score != RANDOM[0]), COLOURS, strict=False))
    for panel, (name, what) in zip(panels, FOLLOWED.items(), strict=True):
        _draw_random(panel, curves[RANDOM], name)
        for (score, first), curve in curves.items():
            if score in colours:
                label = f"{score}, {first} first"
                style = dict[str, Any](color=colours[score], linestyle=STYLES[first], linewidth=1.5)
                panel.plot(_percent(curve), curve.mean(name).numpy(), label=label, **style)
        panel.set_title(what, fontsize="medium")
        panel.set(xlabel="silent heads, %", xlim=(0, 100))
        panel.spines[["top", "right"]].set_visible(False)
        panel.grid(alpha=0.25)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False)
    draw_title(figure, title)
    return figure


def _draw_random(panel: Axes, curve: HeadAblationCurve, name: str) -> None:
    means = curve.order_means(name).numpy()
    panel.fill_between(_percent(curve), means.min(0), means.max(0), color=GREY, alpha=0.25, lw=0)
    label = f"{len(means)} random orders: mean, lowest to highest"
    panel.plot(_percent(curve), means.mean(0), color=GREY, linewidth=1.5, label=label)


def _percent(curve: HeadAblationCurve) -> Any:
    return 100 * np.asarray(curve.counts) / int(curve.counts[-1])
