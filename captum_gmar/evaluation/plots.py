"""The plots of a results folder."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from captum_gmar.evaluation.controls import CONTROLS
from captum_gmar.evaluation.report import ARROWS
from captum_gmar.evaluation.statistics import DIFFERENCE, Array, Quantity, Summary
from captum_gmar.files.writing import replacing
from captum_gmar.metrics import PerturbationCurve
from captum_gmar.visualization import visualize_perturbation_curves

DPI = 120
ROW_INCHES, PANEL_INCHES, NAME_INCHES = 0.24, 2.4, 2.2
METHOD_COLOUR, CONTROL_COLOUR = "#0072b2", "#777777"


def write_plots(
    folder: Path,
    values: Mapping[Quantity, Mapping[str, Sequence[float]]],
    found: Mapping[Quantity, Mapping[str, Array]],
    summaries: Sequence[Summary],
    removals: Mapping[str, str],
) -> None:
    """The curves of each removal, and the means with their intervals.

    Args:
        folder: where they go; it is made.
        values: of every example, from quantity and method.
        found: the curves (examples, points), likewise.
        summaries: of every quantity.
        removals: full names.
    """
    folder.mkdir(exist_ok=True)
    for removal, name in removals.items():
        both = [
            {
                method: _curve(values[quantity][method], points, name)
                for method, points in found.get(quantity, {}).items()
            }
            for quantity in (Quantity("insertion", removal), Quantity("deletion", removal))
        ]
        _save(visualize_perturbation_curves(*both, use_pyplot=False)[0], folder / f"curves-{removal}.png")
    headline = [summary for summary in summaries if summary.quantity.metric == DIFFERENCE]
    others = [summary for summary in summaries if not summary.quantity.removal]
    first = (headline or others or summaries)[0]
    ranked = [name for _, name in sorted(zip(first.means, first.methods, strict=True))]
    for name, own in (("insertion-deletion", headline), ("other-metrics", others)):
        if own:
            _save(draw_estimates(own, ranked), folder / f"{name}.png")


def draw_estimates(summaries: Sequence[Summary], methods: Sequence[str]) -> Figure:
    """A panel for each quantity: the mean of each method with its interval, the methods from below."""
    width = NAME_INCHES + PANEL_INCHES * len(summaries)
    figure = Figure(figsize=(width, 1 + ROW_INCHES * len(methods)), layout="constrained")
    panels: Any = figure.subplots(1, len(summaries), sharey=True, squeeze=False)
    for panel, summary in zip(panels[0], summaries, strict=True):
        _draw_panel(panel, summary, methods)
    return figure


def _draw_panel(panel: Axes, summary: Summary, methods: Sequence[str]) -> None:
    means = dict(zip(summary.methods, summary.means, strict=True))
    for height, name in enumerate(methods):
        colour = CONTROL_COLOUR if name in CONTROLS else METHOD_COLOUR
        own = means[name]
        panel.plot([own.low, own.high], [height, height], color=colour, linewidth=1.5)
        panel.plot(own.mean, height, "o", color=colour, markersize=4)
    panel.set_yticks(range(len(methods)), methods)
    metric, removal = summary.quantity
    panel.set_title(f"{metric} {ARROWS.get(metric, '')}\n{removal}".rstrip(), fontsize="medium")
    panel.set_xlabel(f"mean, 95 % interval, n = {summary.examples}", fontsize="small")
    panel.grid(axis="x", alpha=0.3)


def _curve(areas: Sequence[float], points: Array, removal: str) -> PerturbationCurve:
    shares = torch.linspace(0, 1, points.shape[1])
    return PerturbationCurve(torch.tensor(areas), torch.from_numpy(points), shares, removal)


def _save(figure: Figure, path: Path) -> None:
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=DPI)
