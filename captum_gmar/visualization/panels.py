"""The panels of a picture: where they lie, and how photos, maps, colour bars and texts are drawn in them."""

import re
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from math import ceil
from typing import Any, NamedTuple, TypeAlias
from weakref import WeakSet

import numpy as np
from matplotlib import pyplot, rcParams
from matplotlib.axes import Axes
from matplotlib.colorbar import Colorbar
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.image import AxesImage
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Rectangle
from matplotlib.textpath import text_to_path

from captum_gmar.visualization.fonts import fit_fonts, missing_letters
from captum_gmar.visualization.heat import Array, Heat
from captum_gmar.visualization.style import SIGNS, number_text

POINTS_PER_INCH, LINE_SPACING = 72, 1.25
SHORTEST, TALLEST = 0.4, 2  # height by width of a panel; longer images are drawn smaller
MARGIN_INCHES = 0.15  # around all
PAD_INCHES = 0.08  # above and below a text
OUTLINES = ("black", 3.5), ("white", 1.5)  # one upon the other, with their widths in points
BAR_INCHES = 0.4  # a colour bar and its values
TOGETHER = re.compile(r"\([^()\n]{1,16}\)")  # "(class 292)" is not torn apart

WINDOWLESS = {"agg", "cairo", "pdf", "pgf", "ps", "svg", "template"}  # Matplotlib's backends that show nothing
_pyplot_figures: "WeakSet[Figure]" = WeakSet()


class Layout(NamedTuple):
    """How large the panels and letters of a grid are."""

    panel: float  # inches
    gap: float  # inches between two
    columns: int  # panels in a line
    name_size: float  # points
    bar_size: float  # points

    @property
    def text(self) -> float:
        """How wide a text above or below a panel may be, in inches."""
        return self.panel + self.gap - 0.08


STRIP = Layout(panel=1.62, gap=0.28, columns=5, name_size=9, bar_size=7)  # as wide as a notebook
OWN_SCALE = "Every map has its\nown colour scale."


class PanelRow(NamedTuple):
    """The heights of a line of panels, in inches."""

    top_space: float  # titles
    panel: float
    bottom_space: float  # axes, colour bars and texts


def make_grid(
    rows: Sequence[PanelRow], count: int, layout: Layout, title: str | None, use_pyplot: bool, left: float = 0
) -> tuple[Figure, list[Axes]]:
    """A figure with so many panels, line by line, each where the rows' heights put it.

    Nothing is measured after it is drawn, which takes Matplotlib several times as long as drawing.
    """
    columns = ceil(count / len(rows))
    width = left + columns * (layout.panel + layout.gap) - layout.gap + 2 * MARGIN_INCHES
    title_space = text_height([title or ""], width - 2 * MARGIN_INCHES, title_size()) + PAD_INCHES if title else 0
    height = 2 * MARGIN_INCHES + title_space + sum(map(sum, rows))
    places, top = list[Place](), height - MARGIN_INCHES - title_space
    for index, row in enumerate(rows):
        bottom = top - row.top_space - row.panel
        for column in range(min(columns, count - index * columns)):
            start = MARGIN_INCHES + left + column * (layout.panel + layout.gap)
            places.append((start / width, bottom / height, layout.panel / width, row.panel / height))
        top = bottom - row.bottom_space
    figure, panels = _figure_of(width, height, places, use_pyplot)
    draw_title(figure, title)
    return figure, panels


Grid: TypeAlias = tuple[Figure, list[Axes]]
Place: TypeAlias = tuple[float, float, float, float]  # of a panel in its figure
_latest_grid: ContextVar[dict[object, Grid] | None] = ContextVar("_latest_grid", default=None)


@contextmanager
def one_figure_redrawn() -> Iterator[None]:
    """Draw pictures into the figure of the one before, within the block, where their panels lie alike.

    New axes and colour bars take half the time of a picture. Each is to be saved before the next is drawn.
    """
    token = _latest_grid.set({})
    try:
        yield
    finally:
        _latest_grid.reset(token)


def _figure_of(width: float, height: float, places: Sequence[Place], use_pyplot: bool) -> Grid:
    """Return a figure of this size in inches and its panels, new or of the picture before."""
    latest, key = _latest_grid.get(), (width, height, *places, use_pyplot)
    if latest is not None and key in latest:
        return latest[key]
    figure = new_figure(use_pyplot, figsize=(width, height))
    grid = figure, [figure.add_axes(place) for place in places]
    if latest is not None:
        latest.clear()
        latest[key] = grid
    return grid


def make_panels(
    photos: Sequence[Array],
    names: Sequence[str],
    bottom_space: float,
    layout: Layout,
    title: str | None,
    use_pyplot: bool,
) -> tuple[Figure, list[Axes]]:
    """A figure with a line of panels for each photo, or several for one, with room for names and, in inches, below."""
    lines = ceil(len(names) / layout.columns) if len(photos) == 1 else 1
    top_space = text_height(names, layout.text, layout.name_size) + PAD_INCHES
    heights = [panel_height(layout.panel, photo) for photo in photos] * lines
    rows = [
        PanelRow(0 if index and len(photos) > 1 else top_space, height, bottom_space)
        for index, height in enumerate(heights)
    ]
    return make_grid(rows, len(photos) * len(names), layout, title, use_pyplot)


def bar_height(texts: Iterable[str], layout: Layout) -> float:
    """In inches, of a colour bar with the longest of the texts."""
    return BAR_INCHES + text_height(texts, layout.text, layout.bar_size) + PAD_INCHES


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
    """The photo, then its maps over it. What their colour bars measure stands below the photo."""
    signs = SIGNS if cmap is None and any(heat.is_signed for heat in heats) else ""
    note = wrapped("\n".join(filter(None, [OWN_SCALE, f"Colour bars: {label}", signs])), STRIP.text, STRIP.bar_size)
    all_names, bottom_space = ["photo", *names], max(bar_height([], STRIP), bar_height([note], STRIP) - BAR_INCHES / 2)
    figure, axes = plt_fig_axis or make_panels([photo], all_names, bottom_space, STRIP, title, use_pyplot)
    panels = given_axes(axes, len(all_names))
    draw_photo(panels[0], photo)
    panels[0].set_xlabel(note, fontsize=STRIP.bar_size, parse_math=False)
    for panel, heat in zip(panels[1:], heats, strict=True):
        draw_overlay(panel, heat, photo, cmap, alpha_overlay)
        draw_values(figure, panel, heat, "", STRIP.bar_size)
    for panel, name in zip(panels, all_names, strict=True):
        panel.set_title(name, fontsize=STRIP.name_size, parse_math=False)
    if plt_fig_axis:
        draw_title(figure, title)
    return figure, panels


def new_figure(use_pyplot: bool, **options: Any) -> Figure:
    """A figure, of pyplot or not. Where pyplot shows nothing, only the newest stays open, for ``pyplot.savefig``."""
    if not use_pyplot:
        return Figure(**options)
    if pyplot.get_backend().lower() in WINDOWLESS:
        for figure in list(_pyplot_figures):
            pyplot.close(figure)
    figure = pyplot.figure(**options)
    _pyplot_figures.add(figure)
    return figure


def make_figure(width: float, height: float, use_pyplot: bool, pad: float = 0.04) -> Figure:
    """A figure that keeps its panels together and nothing overlapping; width, height and pad in inches."""
    engine = ConstrainedLayoutEngine(compress=True, w_pad=pad, h_pad=pad)
    return new_figure(use_pyplot, figsize=(width, height), layout=engine)


def panel_height(width: float, photo: Array) -> float:
    """In inches, of a panel of this width; that of a very long photo is less long."""
    ratio: float = photo.shape[0] / photo.shape[1]
    return width * min(max(ratio, SHORTEST), TALLEST)


def given_axes(axes: Any, count: int) -> list[Axes]:
    """The axes that a user passes, in any nesting."""
    panels = list(np.ravel(np.asarray(axes, dtype=object)))
    if len(panels) != count or not all(isinstance(panel, Axes) for panel in panels):
        raise ValueError(f"plt_fig_axis must be a figure and {count} of its axes. Got {len(panels)} axes instead.")
    return panels


def draw_photo(panel: Axes, photo: Array) -> None:
    """A photo (height, width, 3) in [0, 1]."""
    _show(panel, "photo", np.rint(255 * photo).astype(np.uint8), None)  # by Matplotlib's own default


def draw_map(panel: Axes, heat: Heat, cmap: str | None) -> None:
    """The map alone."""
    image = _show(panel, "map", heat.values)
    if image.cmap.name != (cmap or heat.cmap):  # each change draws the colour bar anew
        image.set_cmap(cmap or heat.cmap)
    image.set_clim(heat.low, heat.high)


def draw_overlay(panel: Axes, heat: Heat, photo: Array, cmap: str | None, alpha_overlay: float) -> None:
    """The photo in its own colours, and over it the map, the more opaque the farther its values are from zero."""
    draw_photo(panel, photo)
    draw_map(panel, heat, cmap)
    panel.images[-1].set_alpha(alpha_overlay * heat.strength)


def outline(panel: Axes, photo: Array, patch: tuple[int, int], patches: tuple[int, ...]) -> None:
    """Frames the patch (row, column), one of so many rows and columns."""
    height, width = (size / count for size, count in zip(photo.shape[:2], patches, strict=True))
    outline_box(panel, (patch[1] * width, patch[0] * height, (patch[1] + 1) * width, (patch[0] + 1) * height))


def outline_box(panel: Axes, box: tuple[float, float, float, float]) -> None:
    """Frames what lies within left, top, right and bottom, in pixels, so that it stands out from any colour."""
    try:
        left, top, right, bottom = map(float, box)
    except (TypeError, ValueError):
        raise ValueError(f"box must be left, top, right and bottom, in pixels. Got {box!r} instead.") from None
    corner, width, height = (left - 0.5, top - 0.5), right - left, bottom - top  # a pixel's middle is whole
    for colour, line in OUTLINES:
        panel.add_patch(Rectangle(corner, width, height, fill=False, edgecolor=colour, linewidth=line))


def outline_region(panel: Axes, region: Array, size: tuple[int, int]) -> None:
    """Frames the cells (rows, columns) that are True, of a photo of this height and width, as a box is framed."""
    if not region.any():
        return
    rows, columns = (np.arange(side) * cells // side for side, cells in zip(size, region.shape, strict=True))
    pixels = np.pad(region[np.ix_(rows, columns)], 1).astype(float)  # so that a region ends where the photo ends
    places = np.arange(-1, size[1] + 1), np.arange(-1, size[0] + 1)
    panel.autoscale(False)  # the panel still ends where the photo does
    for colour, line in OUTLINES:
        panel.contour(*places, pixels, levels=[0.5], colors=colour, linewidths=line)


def draw_colour_bar(figure: Figure, panel: Axes, place: Any, **options: Any) -> Colorbar:
    """Draws the colours of a panel's map at ``place`` of the panel, in full strength also where the map is not."""
    return opaque_colorbar(figure.colorbar(panel.images[-1], cax=panel.inset_axes(place), **options))


def opaque_colorbar(bar: Colorbar) -> Colorbar:
    """The bar, whose colours are opaque whatever those of its map are."""
    if bar.solids is not None:
        bar.solids.set_alpha(1)
    return bar


def draw_values(figure: Figure, panel: Axes, heat: Heat, text: str, size: float) -> None:
    """A colour bar below the panel with few values and, below it, a text; letters of this size in points."""
    height, width = heat.values.shape
    wider = max(1, height / width / TALLEST)  # below an image that is drawn smaller, the bar is not
    thickness = wider * 0.05 * width / height
    place = ((1 - wider) / 2, -1.8 * thickness, wider, thickness)
    bar = panel.images[-1].colorbar  # of the picture before
    if bar is None:
        bar = draw_colour_bar(figure, panel, place, orientation="horizontal", ticks=list(heat.ticks))
    bar.ax.set_xticks(heat.ticks, value_labels(heat), fontsize=size, horizontalalignment="center")
    bar.ax.tick_params(length=2)
    bar.ax.minorticks_off()
    bar.ax.set_xlabel(text, fontsize=size, parse_math=False)
    if len(heat.ticks) > 1:  # those at the ends stay below their own bar
        first, *_, last = bar.ax.get_xticklabels()
        first.set_horizontalalignment("left")
        last.set_horizontalalignment("right")


def draw_title(figure: Figure, title: str | None) -> None:
    """Above all, at the upper edge."""
    if title:
        text = wrapped(title, figure.get_figwidth() - 2 * MARGIN_INCHES, title_size())
        place = {} if figure.get_layout_engine() else {"y": 1 - MARGIN_INCHES / figure.get_figheight(), "va": "top"}
        figure.suptitle(text, parse_math=False, **place)


def show(figure: Figure, use_pyplot: bool) -> None:
    """The end of every drawing."""
    fit_fonts(figure)
    if use_pyplot:
        pyplot.show()


def title_size() -> float:
    """Points"""
    return FontProperties(size=rcParams["figure.titlesize"]).get_size_in_points()


def value_labels(heat: Heat) -> list[str]:
    """What stands at the ticks of a map's colour bar."""
    labels = tick_labels(heat.ticks)
    if heat.beyond[0]:
        labels[0] = f"≤ {labels[0]}"
    if heat.beyond[1]:
        labels[-1] = f"≥ {labels[-1]}"
    return labels


def tick_labels(values: tuple[float, ...]) -> list[str]:
    """The values with as few digits as tell them apart, three at least."""
    for digits in range(3, 8):
        labels = [number_text(value, f".{digits}g") for value in values]
        if len(set(labels)) == len(set(values)):
            break
    return labels


def map_text(label: str | None, heat: Heat, cmap: str | None, note: str | None) -> str:
    """What stands below a map's colour bar: what it measures, what its colours say, and what the map does not say."""
    signs = SIGNS if heat.is_signed and cmap is None else ""
    return "\n".join(str(part) for part in (heat.label if label is None else label, signs, note) if part)


def wrapped(text: str, inches: float, points: float) -> str:
    """The text in lines of at most this width, in letters of this size; its own lines stay apart."""
    return "\n".join(_wrapped(" ".join(line.split()), inches, points) for line in str(text).splitlines())


def _wrapped(text: str, inches: float, points: float) -> str:
    text = TOGETHER.sub(lambda group: group[0].replace(" ", "\xa0"), text)
    width, lines = {letter: _width(letter, points) for letter in set(text)}, [""]
    for letters in range(len(text), 0, -1):
        lines = textwrap.wrap(text, letters)
        if max((sum(map(width.__getitem__, line)) for line in lines), default=0) <= inches * POINTS_PER_INCH:
            break
    return "\n".join(lines).replace("\xa0", " ")


def text_height(texts: Iterable[str], inches: float, points: float) -> float:
    """The height in inches of the highest of the texts, wrapped."""
    lines = max((wrapped(text, inches, points).count("\n") + 1 for text in texts if text), default=0)
    return lines * points * LINE_SPACING / POINTS_PER_INCH


def _width(letter: str, points: float) -> float:
    """Points"""
    return _width_of_font(letter, points, tuple(rcParams["font.family"]))


@lru_cache(maxsize=4096)
def _width_of_font(letter: str, points: float, family: tuple[str, ...]) -> float:
    font = FontProperties(family=list(family), size=points)
    if missing_letters(letter, font):
        return points  # of another font; few letters are wider than high
    width: float = text_to_path.get_text_width_height_descent(letter, font, ismath=False)[0]
    return width


def _show(panel: Axes, name: str, values: Array, interpolation: str | None = "nearest") -> AxesImage:
    """Draw an image of this name, in the place of that of the picture before if there is one."""
    image = next((image for image in panel.images if image.get_gid() == name), None)
    if image is None:
        image = panel.imshow(values, interpolation=interpolation, origin="upper", aspect="equal", gid=name)
        panel.set(xticks=[], yticks=[])
    else:
        image.set_data(values)
    return image
