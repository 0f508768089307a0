"""A photo, and of several methods the map over it, its curves, and what it costs."""

from collections.abc import Sequence
from math import ceil
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, MaxNLocator

from captum_gmar.attr.catalogue import METHODS
from captum_gmar.inspection.method_results import MethodResult, time_text
from captum_gmar.visualization.attribution import ALPHA
from captum_gmar.visualization.heat import Pixels, heat_of, photo_of
from captum_gmar.visualization.panels import (
    PAD_INCHES,
    Layout,
    PanelRow,
    draw_overlay,
    draw_photo,
    draw_title,
    given_axes,
    make_grid,
    panel_height,
    show,
    text_height,
    wrapped,
)
from captum_gmar.visualization.style import DELETION_LINE, GREY, INSERTION_LINE, SIGNS, number_text

WIDEST = 5  # panels in a line
PAIRS = Layout(panel=2.25, gap=0.45, columns=WIDEST, name_size=10, bar_size=8)
PAIR_LETTERS = PAIRS.panel, PAIRS.bar_size
AXIS_INCHES = 0.3  # the numbers at an axis
CURVES_HEIGHT = 0.65  # of its width
LEGEND_POINTS = 46  # the height of three lines, and a gap
CAPTION_LETTERS = PAIRS.panel + 0.25, PAIRS.bar_size

REFERENCE: dict[str, Any] = {"color": GREY, "linewidth": 0.8, "zorder": 1.5}
NOTE = f"Every map has its own colours, from zero to its largest values. Of signed maps {SIGNS}."


def visualize_side_by_side(
    methods: Sequence[MethodResult],
    reference: MethodResult,
    image: Pixels,
    *,
    followed: str,
    is_probability: bool,
    removal: str,
    title: str | None = None,
    cmap: str | None = None,
    alpha_overlay: float = ALPHA,
    plt_fig_axis: tuple[Figure, Any] | None = None,
    use_pyplot: bool = True,
) -> tuple[Figure, list[list[Axes]]]:
    """
    Draws the photo, and of every method its map over the photo and below it the curves of insertion and deletion, their
    areas, and what the map costs.

    All curves have the same axes. In grey among them are those of the reference, the random map for example. Every map
    has a colour scale of its own, that of :func:`~captum_gmar.visualize_attribution`; for its values draw it with that
    function or with :func:`~captum_gmar.visualize_comparison`.

    Args:
        methods (sequence of MethodResult): ``methods`` of what :func:`captum_gmar.compare` returned.
        reference (MethodResult): One of its ``controls``.
        image (Tensor, numpy.ndarray or PIL.Image.Image): What the model saw of the photo, as
            :func:`~captum_gmar.visualize_attribution` takes it.
        followed (str): What the curves follow.
        is_probability (bool): Whether that is one, from 0 to 1.
        removal (str): How patches were removed.
        plt_fig_axis (tuple, optional): A figure and 2 × (1 + methods) of its axes to draw in, the upper and the lower
            of the photo and then of every method.
            Default: None

    title, cmap, alpha_overlay, use_pyplot are those of :func:`~captum_gmar.visualize_attribution`.

    Returns:
        2-element tuple of **figure**, **axes**:
        - **figure** (*matplotlib.figure.Figure*)
        - **axes** (*list of list of matplotlib.axes.Axes*): of the photo and of every method, the upper and the lower.

    Raises:
        TypeError: if the image is none of these types.
        ValueError: if shapes or values are none of these, or the patches do not divide the image evenly.
    """
    photo = photo_of(image)
    heats = [heat_of(result.relevance, photo, result.name) for result in methods]
    names = ["photo", *(result.name for result in methods)]
    captions = [_caption(result) for result in methods]
    heights = (
        panel_height(PAIRS.panel, photo),
        AXIS_INCHES + text_height(captions, *CAPTION_LETTERS) + PAD_INCHES,
    )
    figure, axes = plt_fig_axis or _panels(*heights, names, title, use_pyplot)
    panels = given_axes(axes, 2 * len(names))
    pairs = [panels[start : start + 2] for start in range(0, len(panels), 2)]
    draw_photo(pairs[0][0], photo)
    for (upper, lower), result, heat, caption in zip(pairs[1:], methods, heats, captions, strict=True):
        draw_overlay(upper, heat, photo, cmap, alpha_overlay)
        _draw_curves(lower, result, reference)
        lower.set_xlabel(caption, fontsize=PAIRS.bar_size, parse_math=False)
    for (upper, _), name in zip(pairs, names, strict=True):
        upper.set_title(
            wrapped(name, PAIRS.text, PAIRS.name_size),
            fontsize=PAIRS.name_size,
            parse_math=False,
        )
    _share_scale([lower for _, lower in pairs[1:]], is_probability)
    notes = f"Curves: {followed} over the share of patches, %. Removal: {removal}.", NOTE
    _draw_legend(pairs[0][1], pairs[1][1], reference.name, notes)
    if plt_fig_axis:
        draw_title(figure, title)
    show(figure, use_pyplot)
    return figure, pairs


def _panels(
    height: float, bottom_space: float, names: Sequence[str], title: str | None, use_pyplot: bool
) -> tuple[Figure, list[Axes]]:
    """The panels of a new figure with room for all texts, the upper and the lower of each pair."""
    lines = ceil(len(names) / WIDEST)
    columns = ceil(len(names) / lines)
    top_space = text_height(names, PAIRS.text, PAIRS.name_size) + PAD_INCHES
    rows = [
        PanelRow(top_space, height, 2 * PAD_INCHES),
        PanelRow(0, CURVES_HEIGHT * PAIRS.panel, bottom_space),
    ] * lines
    figure, panels = make_grid(rows, 2 * lines * columns, PAIRS, title, use_pyplot, left=AXIS_INCHES)
    pairs = [
        (panels[2 * line * columns + column], panels[(2 * line + 1) * columns + column])
        for line in range(lines)
        for column in range(columns)
    ]
    for panel in (panel for pair in pairs[len(names) :] for panel in pair):
        panel.remove()
    return figure, [panel for pair in pairs[: len(names)] for panel in pair]


def _draw_curves(panel: Axes, result: MethodResult, reference: MethodResult) -> None:
    for curves, style in ((reference, REFERENCE), (result, {})):
        for name, curve, line in (
            (f"insertion: {curves.name}", curves.insertion, INSERTION_LINE),
            (f"deletion: {curves.name}", curves.deletion, DELETION_LINE),
        ):
            shares, values = 100 * curve.shares.cpu().double(), curve.curve[0].cpu().double()
            panel.plot(shares.numpy(), values.numpy(), label=name, **{**line, **style})
    panel.set_box_aspect(CURVES_HEIGHT)
    panel.set_xlim(0, 100)
    panel.set_xticks([0, 50, 100], ["0", "50", "100"])
    panel.tick_params(labelsize=PAIRS.bar_size)
    panel.spines[["top", "right"]].set_visible(False)
    panel.grid(alpha=0.25)


def _share_scale(panels: Sequence[Axes], is_probability: bool) -> None:
    limits = [panel.get_ylim() for panel in panels]
    low, high = (-0.02, 1.02) if is_probability else (min(low for low, _ in limits), max(high for _, high in limits))
    for panel in panels:
        panel.set_ylim(low, high)
        panel.yaxis.set_major_locator(FixedLocator([0, 0.5, 1]) if is_probability else MaxNLocator(2))


def _caption(result: MethodResult) -> str:
    """How faithful a map is, what it costs, and what it does not say."""
    inserted, deleted, difference = (number_text(area, ".3f") for area in result.areas)
    lines = [f"insertion {inserted}, deletion {deleted}", f"difference {difference}"]
    if result.cost is not None:
        lines.append(f"{time_text(result.cost)} ms, {result.cost.ratio:.1f} × a forward pass")
        if result.cost.forward_passes is not None:
            lines.append(f"passes: {result.cost.forward_passes} forward, {result.cost.backward_passes} backward")
    if result.convergence is not None:
        delta, difference = map(number_text, result.convergence)
        lines.append(f"convergence delta {delta} of {difference}")
    if result.name in METHODS:
        lines.append(METHODS[result.name].caveat)
    return wrapped("\n".join(lines), *CAPTION_LETTERS)


def _draw_legend(panel: Axes, curves: Axes, reference: str, notes: Sequence[str]) -> None:
    """Says what the lines are, in place of the photo's curves."""
    panel.set_axis_off()
    panel.set_box_aspect(CURVES_HEIGHT)
    *reference_lines, inserted, deleted = curves.get_lines()
    legend = panel.legend(
        [inserted, deleted, reference_lines[0]],
        ["insertion ↑: patches there", "deletion ↓: patches removed", f"{reference}, both"],
        loc="upper left",
        bbox_to_anchor=(0, 1),
        fontsize=PAIRS.bar_size,
        frameon=False,
        borderaxespad=0,
        borderpad=0,
        handlelength=2.5,
    )
    for text in legend.get_texts():
        text.set_parse_math(False)
    caption = "\n\n".join(wrapped(note, *PAIR_LETTERS) for note in notes)
    place: dict[str, Any] = {"xytext": (0, -LEGEND_POINTS), "xycoords": "axes fraction", "textcoords": "offset points"}
    panel.annotate(caption, (0, 1), fontsize=PAIRS.bar_size, va="top", parse_math=False, **place)
