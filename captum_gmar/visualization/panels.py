"""The panels of a picture: photos, maps and their colour bars.

Captum scales what it draws to [0, 1]; here its pictures get the real values back, so that colour bars and the cursor
show them.
"""

import textwrap
from collections.abc import Iterable
from typing import Any

import numpy as np
from captum.attr import visualization
from matplotlib import pyplot, rcParams
from matplotlib.axes import Axes
from matplotlib.colorbar import Colorbar
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Rectangle
from matplotlib.textpath import text_to_path

from captum_gmar.visualization.heat import Array, Heat
from captum_gmar.visualization.style import number_text

POINTS_PER_INCH, LINE_SPACING = 72, 1.25
SHORTEST, TALLEST = 0.4, 2  # height by width of a panel; longer images are drawn smaller

MARGIN_INCHES = 0.3  # beside the panels and the title

# Percent of the attribution that Captum may cut off. None, in truth, but of zero its rounding makes an IndexError.
OUTLIERS = 1e-6


def make_figure(width: float, height: float, use_pyplot: bool, pad: float = 0.04) -> Figure:
    """A figure that keeps its panels together and nothing overlapping; width, height and pad in inches."""
    make = pyplot.figure if use_pyplot else Figure
    return make(figsize=(width, height), layout=ConstrainedLayoutEngine(compress=True, w_pad=pad, h_pad=pad))


def panel_height(width: float, photo: Array) -> float:
    ratio: float = photo.shape[0] / photo.shape[1]
    return width * min(max(ratio, SHORTEST), TALLEST)


def given_axes(axes: Any, count: int) -> list[Axes]:
    """The axes that a user passes, in any nesting."""
    panels = list(np.ravel(np.asarray(axes, dtype=object)))
    if len(panels) != count or not all(isinstance(panel, Axes) for panel in panels):
        raise ValueError(f"plt_fig_axis must be a figure and {count} of its axes. Got {len(panels)} axes instead.")
    return panels


def draw_photo(panel: Axes, photo: Array) -> None:
    _draw(panel, np.ones(photo.shape[:2]), photo, "original_image")


def draw_map(panel: Axes, heat: Heat, photo: Array, method: str, cmap: str | None, alpha_overlay: float) -> None:
    """Draws with Captum's ``method``, "heat_map" or "blended_heat_map"."""
    scaled = (heat.values - heat.low) / (heat.high - heat.low)
    _draw(panel, scaled, photo, method, cmap=cmap or heat.cmap, alpha_overlay=alpha_overlay)
    *below, image = panel.images
    image.set(data=heat.values, clim=(heat.low, heat.high))
    for grey in below:  # which Matplotlib would stretch to full contrast
        grey.set_clim(0, 255)


def outline(panel: Axes, photo: Array, patch: tuple[int, int], patches: tuple[int, ...]) -> None:
    """Frames the patch (row, column), one of so many rows and columns, so that it stands out from any colour."""
    height, width = (size / count for size, count in zip(photo.shape[:2], patches, strict=True))
    corner = patch[1] * width - 0.5, patch[0] * height - 0.5  # of its first pixel, whose middle is whole
    for colour, line in (("black", 3.5), ("white", 1.5)):
        panel.add_patch(Rectangle(corner, width, height, fill=False, edgecolor=colour, linewidth=line))


def draw_colour_bar(figure: Figure, panel: Axes, place: Any, **options: Any) -> Colorbar:
    """Draws the colours of a panel's map at ``place`` of the panel, in full strength also where the map is not."""
    bar = figure.colorbar(panel.images[-1], cax=panel.inset_axes(place), **options)
    if bar.solids is not None:
        bar.solids.set_alpha(1)
    return bar


def draw_title(figure: Figure, title: str | None) -> None:
    if title:
        figure.suptitle(wrapped(title, figure.get_figwidth() - MARGIN_INCHES, title_size()), parse_math=False)


def show(use_pyplot: bool) -> None:
    if use_pyplot:
        pyplot.show()


def title_size() -> float:
    """Points"""
    return FontProperties(size=rcParams["figure.titlesize"]).get_size_in_points()


def tick_labels(values: tuple[float, ...]) -> list[str]:
    """The values with as few digits as tell them apart, three at least."""
    for digits in range(3, 8):
        labels = [number_text(value, f".{digits}g") for value in values]
        if len(set(labels)) == len(set(values)):
            break
    return labels


def wrapped(text: str, inches: float, points: float) -> str:
    """The text in lines of at most this width, in letters of this size; its own lines stay apart."""
    return "\n".join(_wrapped(" ".join(line.split()), inches, points) for line in text.splitlines())


def _wrapped(text: str, inches: float, points: float) -> str:
    width, lines = {letter: _width(letter, points) for letter in set(text)}, [""]
    for letters in range(len(text), 0, -1):
        lines = textwrap.wrap(text, letters)
        if max((sum(map(width.__getitem__, line)) for line in lines), default=0) <= inches * POINTS_PER_INCH:
            break
    return "\n".join(lines)


def text_height(texts: Iterable[str], inches: float, points: float) -> float:
    """The height in inches of the highest of the texts, wrapped."""
    lines = max(wrapped(text, inches, points).count("\n") + 1 for text in texts)
    return lines * points * LINE_SPACING / POINTS_PER_INCH


def _width(letter: str, points: float) -> float:
    """Points"""
    font = FontProperties(size=points)
    width: float = text_to_path.get_text_width_height_descent(letter, font, ismath=False)[0]
    return width


def _draw(panel: Axes, scaled: Array, photo: Array, method: str, **options: Any) -> None:
    figure: Any = panel.figure
    visualization.visualize_image_attr(
        scaled,
        photo,
        method,
        sign="positive",
        plt_fig_axis=(figure, panel),
        outlier_perc=OUTLIERS,
        use_pyplot=False,
        **options,
    )
