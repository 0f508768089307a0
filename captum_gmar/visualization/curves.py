"""Perturbation curves of several methods, in one panel for insertion and one for deletion."""

from collections.abc import Iterator, Mapping
from itertools import cycle, product
from math import ceil
from typing import Any

from matplotlib import rcParams
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import ScaledTranslation
from torch import Tensor

from captum_gmar.metrics import PerturbationCurve
from captum_gmar.metrics._statistics import FEWEST, margin
from captum_gmar.visualization._panels import draw_title, given_axes, make_figure, show, title_height
from captum_gmar.visualization._style import BLACK, COLOURS, GREY, number_text

Curves = Mapping[str, PerturbationCurve]

# What each panel says of itself: of its patches, its axis, and which areas are good.
INSERTION_TEXTS = ("patches brought back", "patches there, %", "higher is better")
DELETION_TEXTS = ("patches removed", "patches removed, %", "lower is better")

LINES = ("solid", (0, (5, 1.5)), (0, (5, 1.5, 1, 1.5)), (0, (1, 1)))
# Maps that know nothing of the model, as captum_gmar.metrics.control_maps names them.
CONTROL_LINES = {"random map": (0, (5, 3)), "uniform map": (0, (2, 2)), "centre blob": (0, (6, 2, 1, 2, 1, 2))}

PANEL_INCHES, HEIGHT_INCHES = 4.6, 2.9
LEGEND_SIZE = 7.5  # points
LEGEND_BELOW_INCHES = 0.48  # the numbers and the name of the axis lie between
MOST_IN_A_COLUMN, MOST_WITH_BANDS = 4, 4


def visualize_perturbation_curves(
    insertion: Curves | None,
    deletion: Curves | None,
    *,
    title: str | None = None,
    label: str = "probability of the target",
    plt_fig_axis: tuple[Figure, Any] | None = None,
    use_pyplot: bool = True,
) -> tuple[Figure, list[Axes]]:
    """Draw insertion and deletion curves, with a line for each method: the mean over the examples.

    The legend below each panel has the mean area under each line, best first. The controls "random map", "uniform map"
    and "centre blob" are grey. With ten or more examples, and at most four methods besides the controls, a band shows
    the 95 % confidence interval of the mean, 1.96 standard errors to either side, and the legend says so. Bands may
    overlap although one method is better on nearly every example.

    The removal is named above each panel. Curves of different removals do not compare and raise an error.

    Args:
        insertion (dict): Results of :func:`captum_gmar.metrics.insertion` by the name of each method. None or an empty
            dict leaves the panel out.
        deletion (dict): The same for :func:`captum_gmar.metrics.deletion`.
        label (str, optional): Quantity and unit of the curves. Default: "probability of the target".
        plt_fig_axis (tuple, optional): A figure and its axes to draw in, one for each panel. The legends are below the
            axes.

    title, use_pyplot are those of :func:`~captum_gmar.visualize_attribution`.

    Returns:
        tuple: **figure**, and **axes** (*list of matplotlib.axes.Axes*): insertion and deletion, or one of them.

    Raises:
        TypeError: if an argument is not a mapping of perturbation curves.
        ValueError: if there are no curves, if those of a panel have different removals, or if a curve contains NaN or
            infinity.

    Example::

        >>> import torch
        >>> from captum_gmar.metrics import control_maps, deletion
        >>> from captum_gmar.visualization import visualize_perturbation_curves
        >>> linear = lambda inputs: inputs.sum((1, 2, 3))
        >>> inputs = torch.rand(5, 1, 4, 4)
        >>> maps = {"input": inputs, **control_maps(inputs)}
        >>> curves = {name: deletion(linear, inputs, map, steps=4, softmax=False) for name, map in maps.items()}
        >>> figure, axes = visualize_perturbation_curves(None, curves, label="output", use_pyplot=False)
        >>> [panel.get_title() for panel in axes]
        ['deletion: patches removed\\nremoval: zero']
    """
    panels = {
        name: (_checked_curves(curves, name), texts)
        for name, curves, texts in (("insertion", insertion, INSERTION_TEXTS), ("deletion", deletion, DELETION_TEXTS))
        if curves is not None and curves != {}
    }
    if not panels:
        raise ValueError("insertion or deletion must hold the curves of at least one method, but got none.")
    names = list(dict.fromkeys(name for curves, _ in panels.values() for name in curves))
    figure, panel_axes = plt_fig_axis or _axes(len(panels), len(names), title, use_pyplot)
    axes, styles = given_axes(panel_axes, len(panels)), _styles(names)
    for panel, (name, (curves, texts)) in zip(axes, panels.items(), strict=True):
        _draw(panel, name, curves, texts, styles)
    axes[0].set_ylabel(label)
    draw_title(figure, title)
    show(figure, use_pyplot)
    return figure, axes


def _checked_curves(curves: Any, name: str) -> Curves:
    if not isinstance(curves, Mapping):
        raise TypeError(f"{name} must be a mapping from method names to curves, but got {type(curves).__name__}.")
    for method, curve in curves.items():
        if not isinstance(curve, PerturbationCurve):
            raise TypeError(f"{name}[{method!r}] must be a result of metrics.{name}, but got {type(curve).__name__}.")
        if not curve.curve.isfinite().all() or not curve.auc.isfinite().all():
            raise ValueError(f"{name}[{method!r}] must be finite, but got NaN or infinity.")
    removals = {curve.removal for curve in curves.values()}
    if len(removals) > 1:
        raise ValueError(f"{name} must be curves of one removal, but got {sorted(removals)}. Plot each in a figure.")
    return curves


def _axes(panels: int, methods: int, title: str | None, use_pyplot: bool) -> tuple[Figure, Any]:
    columns = ceil(methods / ceil(methods / _columns(methods)))
    rows = ceil(methods / columns) + 1
    width = panels * PANEL_INCHES
    figure = make_figure(width, HEIGHT_INCHES + title_height(title, width) + 1.2 + rows * 0.17, use_pyplot)
    return figure, figure.subplots(1, panels, sharey=True, squeeze=False)


def _columns(methods: int) -> int:
    """Return the number of columns of a legend."""
    return 1 if methods <= MOST_IN_A_COLUMN else 2


def _styles(names: list[str]) -> dict[str, dict[str, Any]]:
    """Return the colour and line of each method, the same in both panels, that no other has."""
    colours = [rcParams["text.color"] if colour == BLACK else colour for colour in COLOURS]  # seen on any ground
    styles: Iterator[tuple[Any, str]] = cycle(product(LINES, colours))
    return {
        name: {"color": GREY, "linestyle": CONTROL_LINES[name], "zorder": 1.5}
        if name in CONTROL_LINES
        else dict(zip(("linestyle", "color"), next(styles), strict=True))
        for name in names
    }


def _draw(panel: Axes, name: str, curves: Curves, texts: tuple[str, str, str], styles: dict[str, Any]) -> None:
    what, axis, better = texts
    best_first = sorted(curves, key=lambda method: float(curves[method].auc.mean()), reverse=name == "insertion")
    examples = {method: len(curve.curve) for method, curve in curves.items() if method not in CONTROL_LINES}
    banded = {method for method, number in examples.items() if number >= FEWEST and len(examples) <= MOST_WITH_BANDS}
    few = f"; no interval of fewer than {FEWEST} examples" if 1 < min(examples.values(), default=1) < FEWEST else ""
    for method in best_first:
        curve = curves[method]
        shares, mean = 100 * _numpy(curve.shares), _numpy(curve.curve.mean(0))
        area = number_text(float(curve.auc.mean()), ".3f")
        panel.plot(shares, mean, label=f"{area}  {method}", linewidth=1.5, **styles[method])
        if method in banded:
            panel.fill_between(shares, *_interval(curve.curve), color=styles[method]["color"], alpha=0.15, lw=0)
    panel.set_title(f"{name}: {what}\nremoval: {next(iter(curves.values())).removal}", fontsize=10, parse_math=False)
    panel.set_xlabel(axis)
    panel.set_xlim(0, 100)
    panel.spines[["top", "right"]].set_visible(False)
    panel.grid(alpha=0.25)
    figure: Any = panel.figure
    legend = panel.legend(
        title=f"mean area, {better}" + ("; band: 95 % interval of the mean" if banded else few),
        ncols=_columns(len(curves)),
        loc="upper center",
        bbox_to_anchor=(0.5, 0),
        bbox_transform=panel.transAxes + ScaledTranslation(0, -LEGEND_BELOW_INCHES, figure.dpi_scale_trans),
        fontsize=LEGEND_SIZE,
        title_fontsize=LEGEND_SIZE,
        frameon=False,
        handlelength=3,
        columnspacing=1,
        borderaxespad=0,
    )
    for text in legend.get_texts():
        text.set_parse_math(False)


def _interval(curves: Tensor) -> tuple[Any, Any]:
    """Return the interval of the mean of curves (examples, points), within the lowest and the highest example."""
    error = margin(curves, 0)
    low, high = curves.mean(0) - error, curves.mean(0) + error
    return _numpy(low.maximum(curves.amin(0))), _numpy(high.minimum(curves.amax(0)))


def _numpy(tensor: Tensor) -> Any:
    return tensor.detach().cpu().double().numpy()
