"""Panels in lines: photos, and maps each with its colour bar below."""

from collections.abc import Sequence
from math import ceil
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from captum_gmar.visualization.heat import Array, Heat
from captum_gmar.visualization.panels import (
    MARGIN_INCHES,
    TALLEST,
    draw_colour_bar,
    draw_map,
    draw_photo,
    draw_title,
    given_axes,
    make_figure,
    panel_height,
    text_height,
    tick_labels,
    title_size,
    wrapped,
)


class Layout(NamedTuple):
    """How large a grid's panels and letters are."""

    panel: float  # inches, with its gaps
    text: float  # inches, what the gaps leave of it, at least
    columns: int  # panels in a line
    name_size: float  # points
    bar: float  # inches, a colour bar and its values
    bar_size: float  # points


STRIP = Layout(panel=1.9, text=1.5, columns=5, name_size=9, bar=0.4, bar_size=7)  # as wide as a notebook

GAP_INCHES = 0.1  # around a panel and its texts
OWN_SCALE = "Every map has its\nown colour scale."


def draw_strip(
    photo: Array,
    heats: Sequence[Heat],
    names: Sequence[str],
    *,
    title: str | None,
    label: str,
    cmap: str | None,
    alpha_overlay: float,
    plt_fig_axis: tuple[Figure, Any] | None,
    use_pyplot: bool,
) -> tuple[Figure, list[Axes]]:
    """The photo, then its maps. What their colour bars measure stands below the photo."""
    note = wrapped(f"Colour bars: {label}", STRIP.text, STRIP.bar_size)
    all_names = ["photo", *names]
    figure, axes = plt_fig_axis or make_panels([photo], all_names, [note], title, use_pyplot, STRIP)
    panels = given_axes(axes, len(all_names))
    draw_photo(panels[0], photo)
    panels[0].set_xlabel(f"{OWN_SCALE}\n{note}", fontsize=STRIP.bar_size, parse_math=False)
    for panel, heat in zip(panels[1:], heats, strict=True):
        draw_map(panel, heat, photo, "blended_heat_map", cmap, alpha_overlay)
        draw_values(figure, panel, heat, "", STRIP.bar_size)
    for panel, name in zip(panels, all_names, strict=True):
        panel.set_title(name, fontsize=STRIP.name_size, parse_math=False)
    draw_title(figure, title)
    return figure, panels


def make_panels(
    photos: list[Array], names: list[str], labels: list[str], title: str | None, use_pyplot: bool, layout: Layout
) -> tuple[Figure, list[Axes]]:
    """The panels of a new figure with room for all texts, image by image; of one image, in several lines."""
    lines = ceil(len(names) / layout.columns) if len(photos) == 1 else 1
    columns, heights = ceil(len(names) / lines), [panel_height(layout.panel, photo) for photo in photos] * lines
    width = columns * layout.panel
    above = lines * text_height(names, layout.text, layout.name_size) + text_height([title or ""], width, title_size())
    below = len(heights) * (layout.bar + text_height(labels, layout.text, layout.bar_size))
    figure = make_figure(width + MARGIN_INCHES, above + sum(heights) + below + MARGIN_INCHES, use_pyplot, GAP_INCHES)
    panels = list(figure.subplots(len(heights), columns, height_ratios=heights, squeeze=False).flat)
    while len(panels) > len(photos) * len(names):
        panels.pop().remove()
    return figure, panels


def draw_values(figure: Figure, panel: Axes, heat: Heat, label: str, size: float) -> None:
    """A colour bar below the panel with few values, in letters of this size in points."""
    height, width = heat.values.shape
    wider = max(1, height / width / TALLEST)  # below an image that is drawn smaller, the bar is not
    thickness = wider * 0.05 * width / height
    place = ((1 - wider) / 2, -1.8 * thickness, wider, thickness)
    bar = draw_colour_bar(figure, panel, place, orientation="horizontal", ticks=list(heat.ticks))
    bar.ax.set_xticks(heat.ticks, tick_labels(heat.ticks), fontsize=size)
    bar.ax.tick_params(length=2)
    bar.ax.minorticks_off()
    bar.ax.set_xlabel(label, fontsize=size)
    if len(heat.ticks) > 1:  # those at the ends stay below their own bar
        first, *_, last = bar.ax.get_xticklabels()
        first.set_horizontalalignment("left")
        last.set_horizontalalignment("right")
