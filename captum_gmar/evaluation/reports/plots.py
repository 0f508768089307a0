"""Means with their intervals, drawn."""

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from captum_gmar.evaluation.catalogue import DIFFERENCE, arrow
from captum_gmar.evaluation.reports.statistics import Summary
from captum_gmar.metrics._statistics import FEWEST
from captum_gmar.metrics.controls import CONTROLS
from captum_gmar.visualization.panels import make_figure, show
from captum_gmar.visualization.style import BLUE, GREY, number_text

ROW_INCHES, COLUMN_INCHES, NAME_INCHES = 0.24, 2.4, 2.2


def ranked(summaries: Sequence[Summary]) -> list[str]:
    """The methods by their means of what is told first, lowest first."""
    headlines = ([s for s in summaries if s.quantity.metric == metric] for metric in (DIFFERENCE, "srg"))
    others = [summary for summary in summaries if not summary.quantity.removal]
    first = next(filter(None, [*headlines, others, summaries]))[0]
    return [name for _, name in sorted(zip(first.means, first.methods, strict=True))]


def draw_estimates(
    summaries: Sequence[Summary], methods: Sequence[str], *, use_pyplot: bool
) -> tuple[Figure, list[Axes]]:
    """A panel for each quantity: the mean of each method with its interval, the methods from below."""
    width = NAME_INCHES + COLUMN_INCHES * len(summaries)
    figure = make_figure(width, 1 + ROW_INCHES * len(methods), use_pyplot=use_pyplot)
    panels: Any = figure.subplots(1, len(summaries), sharey=True, squeeze=False)
    for panel, summary in zip(panels[0], summaries, strict=True):
        _draw_panel(panel, summary, methods)
    show(figure, use_pyplot)
    return figure, list(panels[0])


def _draw_panel(panel: Axes, summary: Summary, methods: Sequence[str]) -> None:
    means = dict(zip(summary.methods, summary.means, strict=True))
    for height, name in enumerate(methods):
        colour = GREY if name in CONTROLS else BLUE
        estimate = means[name]
        if estimate.low is not None and estimate.high is not None:
            panel.plot([estimate.low, estimate.high], [height, height], color=colour, linewidth=1.5)
        panel.plot(estimate.mean, height, "o", color=colour, markersize=4)
    panel.set_yticks(range(len(methods)), methods)
    metric, removal = summary.quantity
    panel.set_title(f"{metric} {arrow(metric)}\n{removal}".rstrip(), fontsize="medium")
    shown = "mean, too few for an interval" if summary.examples < FEWEST else "mean, 95 % interval"
    panel.set_xlabel(f"{shown}, n = {summary.examples}", fontsize="small")
    panel.xaxis.set_major_locator(MaxNLocator(4))
    panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: number_text(value, ".4g")))
    panel.grid(axis="x", alpha=0.3)
