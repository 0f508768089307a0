"""The panels of a picture: images with their names, colour bars and texts, each where its size puts it."""

import re
import textwrap
from collections.abc import Sequence
from functools import lru_cache
from math import ceil
from typing import Any, NamedTuple, TypeVar
from weakref import WeakSet

import numpy as np
from matplotlib import pyplot, rcParams
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.image import AxesImage
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.textpath import text_to_path
from matplotlib.transforms import ScaledTranslation, blended_transform_factory
from PIL import Image

from captum_gmar.files.writing import DOTS_PER_INCH
from captum_gmar.visualization._heatmap import PAPER, Crop, Heat, Pixels, blend, corners_of, outline_box, photo_of, tint
from captum_gmar.visualization._style import SIGNS, fit_fonts, missing_letters, number_text

POINTS_PER_INCH, LINE_SPACING = 72, 1.25
SHARPEST = 300  # pixels an inch of an image in a panel: more than twice those of a saved picture
SMALLEST = 0.5  # inches of a panel
SHORTEST, TALLEST = 0.4, 2  # height by width of a panel; longer images are drawn smaller
MARGIN_INCHES, NARROWEST = 0.15, 2.5  # around all, and the width of a figure
PAD_INCHES = 0.08  # above and below a text
BAR_GAP, BAR_THICKNESS, TICK_GAP, BAR_INCHES = 0.08, 0.1, 0.03, 0.36  # of a colour bar; the last with its values
BAR_COLOURS = 256
TOGETHER = re.compile(r"\([^()\n]{1,16}\)")  # "(class 292)" is not torn apart

Listed = TypeVar("Listed")
WINDOWLESS = {"agg", "cairo", "pdf", "pgf", "ps", "svg", "template"}  # Matplotlib's backends that show nothing
_pyplot_figures: "WeakSet[Figure]" = WeakSet()


class Layout(NamedTuple):
    """How large the panels and letters of a grid are."""

    panel: float  # inches
    gap: float  # inches between two
    columns: int  # panels in a line
    name_size: float  # points
    text_size: float  # points

    @property
    def text(self) -> float:
        """Greatest width of a text above or below a panel, in inches."""
        return self.panel + self.gap - 0.08

    def fit(self, image: Pixels, **boxes: Crop | None) -> tuple[Any, ...]:
        """Return a photo no larger than a panel can show, and named boxes of the photo in its pixels."""
        photo = whole = photo_of(image)
        most = round(SHARPEST * self.panel)
        if max(whole.size) > most:
            photo = whole.copy()
            photo.thumbnail((most, most), Image.Resampling.BICUBIC, reducing_gap=2)
        scales = np.divide(photo.size, whole.size)
        checked = [box if box is None else corners_of(box, name) for name, box in boxes.items()]
        return photo, *(box and tuple(np.multiply(box, [*scales, *scales]).tolist()) for box in checked)

    def fit_width(self, width: float, columns: int) -> "Layout":
        """Return the layout whose panels make a figure of this width in inches."""
        panel = (width - 2 * MARGIN_INCHES + self.gap) / columns - self.gap
        if not panel >= SMALLEST:
            least = columns * (SMALLEST + self.gap) - self.gap + 2 * MARGIN_INCHES
            raise ValueError(f"width must be at least {least:.2f} inches for {columns} columns, but got {width:.2f}.")
        return self._replace(panel=panel)


STRIP = Layout(panel=1.62, gap=0.28, columns=5, name_size=9, text_size=7)  # as wide as a notebook
OWN_SCALE = "Every map has its\nown colour scale."


class Tile(NamedTuple):
    """What one panel shows."""

    image: Image.Image
    name: str = ""  # above
    text: str = ""  # below
    heat: Heat | None = None  # has a colour bar
    span: int = 1  # how many panels wide the text may be
    row: str = ""  # at the left
    marks: Sequence[tuple[float, float, str]] = ()  # texts on the image, at x and y in its pixels


class PanelRow(NamedTuple):
    """The heights of a line of panels, in inches."""

    top_space: float  # titles
    panel: float
    bottom_space: float  # axes, colour bars and texts
    panels: int


def draw_tiles(
    lines: Sequence[Sequence[Tile]],
    layout: Layout,
    *,
    title: str | None,
    width: float | None = None,
    plt_fig_axis: tuple[Figure, Any] | None = None,
    use_pyplot: bool,
) -> tuple[Figure, list[Axes]]:
    """Draw lines of tiles, in axes of the user's or of a new figure, this wide in inches, and show it."""
    given, left = lines, 0.0
    for _ in range(1 if width is None else 3):  # names of rows take width of the panels, by whose height they wrap
        layout = layout if width is None else layout.fit_width(width - left, max(map(len, lines)))
        lines = [[wrap_tile(tile, layout) for tile in line] for line in given]
        left = max(text_height(tile.row, layout.name_size) for line in lines for tile in line)
    tiles = [tile for line in lines for tile in line]
    if plt_fig_axis:
        if not isinstance(plt_fig_axis, tuple):
            raise TypeError(f"plt_fig_axis must be a figure and its axes, a tuple, but got {plt_fig_axis!r}.")
        figure, panels = plt_fig_axis[0], given_axes(plt_fig_axis[1], len(tiles))
        draw_title(figure, title)
    else:
        figure, panels = make_grid([tile_row(line, layout) for line in lines], layout, title, use_pyplot, left)
    for panel, tile in zip(panels, tiles, strict=True):
        draw_tile(panel, tile, layout)
    show(figure, use_pyplot)
    return figure, panels


def split_evenly(items: Sequence[Listed], most: int) -> list[Sequence[Listed]]:
    """Return the items in as few lines of at most so many as they need, all but the last of one length."""
    length = ceil(len(items) / ceil(len(items) / most))
    return [items[start : start + length] for start in range(0, len(items), length)]


def wrap_tile(tile: Tile, layout: Layout) -> Tile:
    """Return the tile with its texts in lines of the layout's width."""
    width = layout.text + (tile.span - 1) * (layout.panel + layout.gap)
    name, text = wrap(tile.name, layout.text, layout.name_size), wrap(tile.text, width, layout.text_size)
    row = wrap(tile.row, panel_height(layout.panel, tile.image), layout.name_size)
    return tile._replace(name=name, text=text, row=row)


def tile_row(tiles: Sequence[Tile], layout: Layout) -> PanelRow:
    """Return the heights of a line of tiles whose texts are wrapped."""
    name_space = max(text_height(tile.name, layout.name_size) for tile in tiles)
    text_space = max(text_height(tile.text, layout.text_size) + BAR_INCHES * bool(tile.heat) for tile in tiles)
    height = max(panel_height(layout.panel, tile.image) for tile in tiles)
    return PanelRow(name_space + PAD_INCHES, height, text_space + PAD_INCHES, len(tiles))


def draw_tile(panel: Axes, tile: Tile, layout: Layout) -> None:
    """Draw an image with its name above, and its colour bar and text below."""
    is_small = max(tile.image.size) < DOTS_PER_INCH * layout.panel  # enlarged, which takes time to smooth
    interpolation = "nearest" if is_small else "antialiased"
    panel.imshow(np.asarray(tile.image), origin="upper", aspect="equal", interpolation=interpolation)
    panel.set(xticks=[], yticks=[])
    panel.set_title(tile.name, fontsize=layout.name_size, parse_math=False)
    panel.set_ylabel(tile.row, fontsize=layout.name_size, parse_math=False, labelpad=POINTS_PER_INCH * PAD_INCHES / 2)
    for x, y, text in tile.marks:
        from matplotlib.patheffects import withStroke  # few pictures have marks

        style: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": layout.text_size, "parse_math": False}
        panel.text(x, y, text, color="black", path_effects=[withStroke(linewidth=2.5, foreground="white")], **style)
    wider = max(1, tile.image.height / tile.image.width / TALLEST)  # the bar is not narrower below a narrow image
    if tile.heat:
        draw_bar(panel, tile.heat, layout.text_size, wider=wider)
    pad = POINTS_PER_INCH * (BAR_INCHES if tile.heat else PAD_INCHES / 2)
    side: Any = "center" if tile.span == 1 else "left"
    panel.set_xlabel(tile.text, fontsize=layout.text_size, labelpad=pad, loc=side, parse_math=False)


def draw_bar(panel: Axes, heat: Heat, size: float, *, wider: float = 1, gap: float = BAR_GAP, text: str = "") -> None:
    """Draw a map's colour bar so many inches below its panel, its values and a text in letters of a size in points."""
    figure: Any = panel.figure
    corner: Any = panel.transAxes
    inches = figure.dpi_scale_trans + ScaledTranslation(0, 0, corner)  # from the panel's lower left corner
    place = blended_transform_factory(panel.transAxes, inches)
    left, right, bottom = (1 - wider) / 2, (1 + wider) / 2, -gap - BAR_THICKNESS
    bar = AxesImage(panel, extent=(left, right, bottom, -gap), interpolation="nearest", transform=place, clip_on=False)
    strength = np.linspace(-heat.is_signed, 1, BAR_COLOURS)[None]
    bar.set_data(np.asarray(tint(np.full_like(strength, PAPER), strength)))
    panel.add_artist(bar)
    options: dict[str, Any] = {"va": "top", "fontsize": size, "transform": place, "parse_math": False}
    for label, side, x in zip(value_labels(heat), ("left", "center", "right"), (left, 0.5, right), strict=False):
        panel.text(x, bottom - TICK_GAP, label, ha=side, **options)
    if text:
        panel.text(0.5, -gap - BAR_INCHES + BAR_GAP, text, ha="center", **options)


def draw_strip(
    photo: Image.Image,
    heats: Sequence[Heat],
    names: Sequence[str],
    *,
    crop: Crop | None,
    smooth: bool,
    box: Crop | None = None,
    label: str,
    **options: Any,
) -> tuple[Figure, list[Axes]]:
    """Draw the photo, then its maps over it, all with a box framed. What colour bars measure is below the photo."""
    signs = SIGNS if any(heat.is_signed for heat in heats) else ""
    note = "\n".join(filter(None, [OWN_SCALE, f"Colour bars: {label}", signs]))
    images = [photo, *(blend(photo, heat, crop, smooth) for heat in heats)]
    if box is not None:
        images = [outline_box(image, box) for image in images]
    tiles = [Tile(images[0], "photo", note)]
    for image, name, heat in zip(images[1:], names, heats, strict=True):
        tiles.append(Tile(image, name, heat.zero_text, heat))
    return draw_tiles(split_evenly(tiles, STRIP.columns), STRIP, **options)


def make_grid(
    rows: Sequence[PanelRow], layout: Layout, title: str | None, use_pyplot: bool, left: float = 0
) -> tuple[Figure, list[Axes]]:
    """Return a figure with lines of panels, each where the rows' heights put it.

    Nothing is measured after it is drawn, which takes Matplotlib several times as long as drawing.
    """
    width = left + max(row.panels for row in rows) * (layout.panel + layout.gap) - layout.gap + 2 * MARGIN_INCHES
    width = max(width, NARROWEST)
    title_space = title_height(title, width)
    height = 2 * MARGIN_INCHES + title_space + sum(row.top_space + row.panel + row.bottom_space for row in rows)
    figure, panels = new_figure(use_pyplot, figsize=(width, height)), []
    top = height - MARGIN_INCHES - title_space
    for row in rows:
        bottom = top - row.top_space - row.panel
        for column in range(row.panels):
            start = MARGIN_INCHES + left + column * (layout.panel + layout.gap)
            panels.append(figure.add_axes((start / width, bottom / height, layout.panel / width, row.panel / height)))
        top = bottom - row.bottom_space
    draw_title(figure, title)
    return figure, panels


def new_figure(use_pyplot: bool, **options: Any) -> Figure:
    """Return a figure, of pyplot or not. Where pyplot shows nothing, only the newest stays open."""
    if not use_pyplot:
        return Figure(**options)
    if pyplot.get_backend().lower() in WINDOWLESS:
        for figure in list(_pyplot_figures):
            pyplot.close(figure)
    figure = pyplot.figure(**options)
    _pyplot_figures.add(figure)
    return figure


def make_figure(width: float, height: float, use_pyplot: bool, pad: float = 0.04) -> Figure:
    """Return a figure that keeps its panels together and nothing overlapping; width, height and pad in inches."""
    engine = ConstrainedLayoutEngine(compress=True, w_pad=pad, h_pad=pad)
    return new_figure(use_pyplot, figsize=(width, height), layout=engine)


def panel_height(width: float, photo: Image.Image) -> float:
    """Return the height in inches of a panel of this width; that of a very long photo is less long."""
    return width * min(max(photo.height / photo.width, SHORTEST), TALLEST)


def given_axes(axes: Any, count: int) -> list[Axes]:
    """Return the axes that a user passes, in any nesting."""
    panels = list(np.ravel(np.asarray(axes, dtype=object)))
    if len(panels) != count or not all(isinstance(panel, Axes) for panel in panels):
        raise ValueError(f"plt_fig_axis must be a figure and {count} of its axes, but got {len(panels)} axes.")
    return panels


def draw_title(figure: Figure, title: str | None) -> None:
    """Draw the title at the upper edge."""
    if title:
        text = wrap(title, figure.get_figwidth() - 2 * MARGIN_INCHES, title_size())
        place = {} if figure.get_layout_engine() else {"y": 1 - MARGIN_INCHES / figure.get_figheight(), "va": "top"}
        figure.suptitle(text, parse_math=False, **place)


def show(figure: Figure, use_pyplot: bool) -> None:
    """Finish a drawing."""
    fit_fonts(figure)
    if use_pyplot:
        pyplot.show()


def title_size() -> float:
    """Return the size of titles in points."""
    return FontProperties(size=rcParams["figure.titlesize"]).get_size_in_points()


def title_height(title: str | None, width: float) -> float:
    """Return the height in inches of a title and the space below it, in a figure of this width."""
    if not title:
        return 0
    return text_height(wrap(title, width - 2 * MARGIN_INCHES, title_size()), title_size()) + PAD_INCHES


def text_height(text: str, points: float) -> float:
    """Return the height in inches of a wrapped text in letters of this size."""
    return bool(text) * (text.count("\n") + 1) * points * LINE_SPACING / POINTS_PER_INCH


def value_labels(heat: Heat) -> list[str]:
    """Return the texts below a map's colour bar, with as few digits as tell them apart, three at least."""
    for digits in range(3, 8):
        labels = [number_text(value, f".{digits}g") for value in heat.ticks]
        if len(set(labels)) == len(set(heat.ticks)):
            break
    is_beyond_low, is_beyond_high = heat.overflows
    if is_beyond_low:
        labels[0] = f"≤ {labels[0]}"
    if is_beyond_high:
        labels[-1] = f"≥ {labels[-1]}"
    return labels


def map_text(label: str | None, heat: Heat, note: str | None) -> str:
    """Return the text below a map's colour bar: what it measures, what its colours say, and what it does not say."""
    signs = SIGNS if heat.is_signed else heat.zero_text
    return "\n".join(str(part) for part in (heat.label if label is None else label, signs, note) if part)


def wrap(text: str, inches: float, points: float) -> str:
    """Return the text in lines of at most this width, in letters of this size; its own lines stay apart."""
    return "\n".join(_wrap_line(" ".join(line.split()), inches, points) for line in str(text).splitlines())


def _wrap_line(text: str, inches: float, points: float) -> str:
    text = TOGETHER.sub(lambda group: group[0].replace(" ", "\xa0"), text)
    family = tuple(rcParams["font.family"])
    width, lines = {letter: _letter_width(letter, points, family) for letter in set(text)}, [""]
    for letters in range(len(text), 0, -1):
        lines = textwrap.wrap(text, letters)
        if max((sum(map(width.__getitem__, line)) for line in lines), default=0) <= inches * POINTS_PER_INCH:
            break
    return "\n".join(lines).replace("\xa0", " ")


@lru_cache(maxsize=4096)
def _letter_width(letter: str, points: float, family: tuple[str, ...]) -> float:
    font = FontProperties(family=list(family), size=points)
    if missing_letters(letter, font):
        return points  # of another font; few letters are wider than high
    width: float = text_to_path.get_text_width_height_descent(letter, font, ismath=False)[0]
    return width
