"""A photo, and of several methods the map over it, its curves, and what it costs."""

from collections.abc import Sequence
from math import ceil
from typing import Any

from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, MaxNLocator

from captum_gmar.inspection.comparison import Compared, Comparison
from captum_gmar.visualization.heat import Array, Pixels, heat_of, photo_of
from captum_gmar.visualization.panels import (
    MARGIN_INCHES,
    draw_map,
    draw_photo,
    draw_title,
    given_axes,
    make_figure,
    panel_height,
    text_height,
    title_size,
    wrapped,
)
from captum_gmar.visualization.style import DELETION_LINE, INSERTION_LINE, milliseconds_text, number_text

WIDEST = 5  # panels in a line

PANEL_INCHES = 2.7  # with its gaps
TEXT_INCHES = 2.3  # what the gaps leave of it, at least
GAP_INCHES = 0.1  # around a panel and its texts
CURVES_HEIGHT = 0.65  # of its width
NAME_SIZE, TEXT_SIZE = 10, 8  # points
LEGEND_POINTS = 46  # the height of three lines, and a gap
CAPTION_LINES = 7  # below the curves, with the numbers at the axis

REFERENCE: dict[str, Any] = {"color": "#999999", "linewidth": 0.8, "zorder": 1.5}
NOTE = (
    "Every map has its own colours, from its lowest to its highest value. Where they are red and blue, red speaks for "
    "the class and blue against it."
)


def visualize_side_by_side(
    comparison: Comparison,
    image: Pixels,
    *,
    title: str | None = None,
    cmap: str | None = None,
    alpha_overlay: float = 0.5,
    plt_fig_axis: tuple[Figure, Any] | None = None,
    use_pyplot: bool = True,
) -> tuple[Figure, list[list[Axes]]]:
    """
    Draws the photo, and of every method its map over the photo in grey and below it the curves of insertion and
    deletion, their areas, and what the map costs.

    All curves have the same axes. In grey among them is the first control, the random map. Every map has a colour scale
    of its own, that of :func:`~captum_gmar.visualize_attribution`; for its values draw it with that function or with
    :func:`~captum_gmar.visualize_comparison`.

    Args:
        comparison (Comparison): What :func:`captum_gmar.compare` returned.
        image (Tensor, numpy.ndarray or PIL.Image.Image): What the model saw of the photo, as
            :func:`~captum_gmar.visualize_attribution` takes it.
        title (str, optional): Above the whole, wrapped where it is long.
            Default: None
        cmap (str, optional): A Matplotlib colour map for all maps; by default as in
            :func:`~captum_gmar.visualize_attribution`.
            Default: None
        alpha_overlay (float, optional): Opacity of the maps over the photo.
            Default: 0.5
        plt_fig_axis (tuple, optional): A figure and 2 × (1 + methods) of its axes to draw in, the upper and the lower
            of the photo and then of every method.
            Default: None
        use_pyplot (bool, optional): As in Captum: whether to make the figure with pyplot and show it. Without, the
            figure is only returned.
            Default: True

    Returns:
        2-element tuple of **figure**, **axes**:
        - **figure** (*matplotlib.figure.Figure*)
        - **axes** (*list of list of matplotlib.axes.Axes*): of the photo and of every method, the upper and the lower.

    Raises:
        TypeError: if the image is none of these types.
        ValueError: if shapes or values are none of these, or the patches do not divide the image evenly.
    """
    photo = photo_of(image)
    heats = [heat_of(own.relevance, photo, own.name) for own in comparison.methods]
    figure, axes = plt_fig_axis or _panels(photo, comparison.methods, title, use_pyplot)
    panels = given_axes(axes, 2 * (1 + len(heats)))
    pairs = [panels[start : start + 2] for start in range(0, len(panels), 2)]
    draw_photo(pairs[0][0], photo)
    _set_name(pairs[0][0], "photo")
    for (upper, lower), own, heat in zip(pairs[1:], comparison.methods, heats, strict=True):
        draw_map(upper, heat, photo, "blended_heat_map", cmap, alpha_overlay)
        _set_name(upper, own.name)
        _draw_curves(lower, own, comparison.controls[0])
        lower.set_xlabel(_caption(own), fontsize=TEXT_SIZE, parse_math=False)
    _share_scale([lower for _, lower in pairs[1:]], comparison.is_probability)
    _draw_legend(pairs[0][1], pairs[1][1], comparison)
    draw_title(figure, title)
    if use_pyplot:
        pyplot.show()
    return figure, pairs


def _panels(
    photo: Array, methods: Sequence[Compared], title: str | None, use_pyplot: bool
) -> tuple[Figure, list[Axes]]:
    """The panels of a new figure with room for all texts, the upper and the lower of each pair."""
    pairs = 1 + len(methods)
    lines = ceil(pairs / WIDEST)
    columns = ceil(pairs / lines)
    heights = [panel_height(PANEL_INCHES, photo), CURVES_HEIGHT * PANEL_INCHES] * lines
    width = columns * PANEL_INCHES + MARGIN_INCHES
    names = text_height([own.name for own in methods], TEXT_INCHES, NAME_SIZE)
    captions = text_height(["W"], TEXT_INCHES, TEXT_SIZE) * CAPTION_LINES
    texts = lines * (names + captions) + text_height([title or ""], width, title_size())
    figure = make_figure(width, sum(heights) + texts + MARGIN_INCHES, use_pyplot, GAP_INCHES)
    grid = figure.subplots(2 * lines, columns, height_ratios=heights, squeeze=False)
    places = [(line, column) for line in range(0, 2 * lines, 2) for column in range(columns)]
    panels = [grid[line + below, column] for line, column in places for below in (0, 1)]
    while len(panels) > 2 * pairs:
        panels.pop().remove()
    return figure, panels


def _set_name(panel: Axes, name: str) -> None:
    panel.set_title(wrapped(name, TEXT_INCHES, NAME_SIZE), fontsize=NAME_SIZE, parse_math=False)


def _draw_curves(panel: Axes, own: Compared, reference: Compared) -> None:
    styles = INSERTION_LINE, DELETION_LINE
    pairs = ((reference, *({**style, **REFERENCE} for style in styles)), (own, *styles))
    for drawn, insertion_style, deletion_style in pairs:
        for name, curve, style in (
            (f"insertion: {drawn.name}", drawn.insertion, insertion_style),
            (f"deletion: {drawn.name}", drawn.deletion, deletion_style),
        ):
            shares, values = 100 * curve.shares.cpu().double(), curve.curve[0].cpu().double()
            panel.plot(shares.numpy(), values.numpy(), label=name, **style)
    panel.set_box_aspect(CURVES_HEIGHT)
    panel.set_xlim(0, 100)
    panel.set_xticks([0, 50, 100], ["0", "50", "100 %"])
    panel.tick_params(labelsize=TEXT_SIZE)
    panel.spines[["top", "right"]].set_visible(False)
    panel.grid(alpha=0.25)


def _share_scale(panels: Sequence[Axes], is_probability: bool) -> None:
    limits = [panel.get_ylim() for panel in panels]
    low, high = (-0.02, 1.02) if is_probability else (min(low for low, _ in limits), max(high for _, high in limits))
    for panel in panels:
        panel.set_ylim(low, high)
        panel.yaxis.set_major_locator(FixedLocator([0, 0.5, 1]) if is_probability else MaxNLocator(2))


def _caption(own: Compared) -> str:
    inserted, deleted, difference = (number_text(area, ".3f") for area in own.areas)
    lines = [f"insertion {inserted}, deletion {deleted}", f"difference {difference}"]
    if own.cost is not None:
        lines.append(f"{milliseconds_text(own.cost.seconds)} ms, {own.cost.ratio:.1f} × a forward pass")
        if own.cost.forward_passes is not None:
            lines.append(f"passes: {own.cost.forward_passes} forward, {own.cost.backward_passes} backward")
    if own.convergence is not None:
        lines.append(
            f"convergence delta {number_text(own.convergence.delta)} of {number_text(own.convergence.difference)}"
        )
    return "\n".join(lines)


def _draw_legend(panel: Axes, curves: Axes, comparison: Comparison) -> None:
    """Says what the lines are, in place of the photo's curves."""
    panel.set_axis_off()
    panel.set_box_aspect(CURVES_HEIGHT)
    *of_reference, inserted, deleted = curves.get_lines()
    reference = comparison.controls[0].name
    legend = panel.legend(
        [inserted, deleted, of_reference[0]],
        ["insertion ↑: patches there", "deletion ↓: patches removed", f"{reference}, both"],
        loc="upper left",
        bbox_to_anchor=(0, 1),
        fontsize=TEXT_SIZE,
        frameon=False,
        borderaxespad=0,
        borderpad=0,
        handlelength=2.5,
    )
    for text in legend.get_texts():
        text.set_parse_math(False)
    curves_note = f"Curves: {comparison.followed} over the share of patches. Removal: {comparison.removal}."
    notes = "\n\n".join(wrapped(note, TEXT_INCHES, TEXT_SIZE) for note in (curves_note, NOTE))
    place: dict[str, Any] = {"xytext": (0, -LEGEND_POINTS), "xycoords": "axes fraction", "textcoords": "offset points"}
    panel.annotate(notes, (0, 1), fontsize=TEXT_SIZE, va="top", parse_math=False, **place)
