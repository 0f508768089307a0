"""How cost grows, drawn."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from benchmarks.rows import BOTH, DENSE, FORWARD
from benchmarks.summary import Growth, Line
from captum_gmar.files.writing import atomic_write
from captum_gmar.visualization._style import COLOURS, GREY

DPI = 120
PANEL_INCHES = (3.8, 3.0)
STYLES = {FORWARD: ":", BOTH: "--", DENSE: "-."}


def draw_growth(growth: Mapping[str, Sequence[Growth]]) -> Figure:
    """Time above and memory below, a column for what grows; both axes are logarithmic, so that a power is a line."""
    width, height = PANEL_INCHES
    figure = Figure(figsize=(width * len(growth), 2 * height + 0.6), layout="constrained")
    panels: Any = figure.subplots(2, len(growth), squeeze=False)
    for column, (what, rows) in enumerate(growth.items()):
        _draw(panels[0][column], what, "seconds", rows)
        _draw(panels[1][column], what, "peak memory, MiB", rows)
    handles, labels = panels[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False, fontsize="small")
    return figure


def save(figure: Figure, path: Path) -> None:
    with atomic_write(path) as temporary:
        figure.savefig(temporary, format="png", dpi=DPI)


def _draw(panel: Axes, what: str, unit: str, rows: Sequence[Growth]) -> None:
    colours = iter(COLOURS)
    for row in rows:
        is_own = row.row in (FORWARD, BOTH)
        values = [_value(line, unit) for line in row.lines]
        colour = GREY if is_own else next(colours)
        panel.plot(row.sizes, values, STYLES.get(row.row, "-"), color=colour, label=row.row, marker="o", markersize=3)
    panel.set(xscale="log", yscale="log", xlabel=what, ylabel=unit)
    panel.set_xticks(rows[0].sizes, map(str, rows[0].sizes))
    panel.xaxis.set_minor_formatter(NullFormatter())
    panel.grid(alpha=0.3)


def _value(line: Line, unit: str) -> float:
    value = line.seconds if unit == "seconds" else line.mib
    return math.nan if value is None else value
