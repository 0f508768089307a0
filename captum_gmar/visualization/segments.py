"""Relevance of the things in a photo, as labels on it."""

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from captum_gmar.metrics.segments import ELSEWHERE, Segments, as_masks, relevance_by_segment
from captum_gmar.visualization._heatmap import OUTLIERS, Crop, Map, Pixels, blend, heat_of, outline_region, photo_of
from captum_gmar.visualization._panels import Tile, draw_tiles, map_text
from captum_gmar.visualization._style import number_text
from captum_gmar.visualization.attribution import LAYOUT


def visualize_segments(
    attribution: Map,
    image: Pixels,
    segments: Segments,
    *,
    crop: Crop | None = None,
    most: int = 8,
    title: str | None = None,
    label: str | None = None,
    note: str | None = None,
    outlier_perc: float = OUTLIERS,
    width: float | None = None,
    plt_fig_axis: tuple[Figure, Any] | None = None,
    use_pyplot: bool = True,
) -> tuple[Figure, list[Axes]]:
    """Draw a map over its photo, with the outlines of segments and the sum of each beside its name.

    Args:
        attribution, image: those of :func:`~captum_gmar.visualize_attribution`.
        segments (Tensor, numpy.ndarray or dict): those of :func:`captum_gmar.metrics.relevance_by_segment`, in pixels
            of the image.
        most (int, optional): Number of segments to draw, those with most evidence for or against.

    crop, title, label, note, outlier_perc, width, plt_fig_axis, use_pyplot are those of
    :func:`~captum_gmar.visualize_attribution`.

    Returns:
        tuple: **figure**, and **axes** (*list of matplotlib.axes.Axes*): the photo, and the map with its segments.

    Raises:
        TypeError, ValueError: as :func:`~captum_gmar.visualize_attribution` and
            :func:`captum_gmar.metrics.relevance_by_segment`.

    Example::

        >>> import torch
        >>> from captum_gmar.visualization import visualize_segments
        >>> cup = {"cup": (100, 60, 300, 280)}
        >>> figure, axes = visualize_segments(torch.rand(14, 14), torch.rand(3, 300, 500), cup, use_pyplot=False)
        >>> [text.get_text().split()[0] for text in axes[1].texts if "\\n" in text.get_text()]
        ['cup']
    """
    photo = photo_of(image)
    heat, masks = heat_of(attribution, photo, outlier_perc=outlier_perc), as_masks(segments, photo.size[::-1])
    rows = relevance_by_segment(heat.values, masks, crop=crop)
    drawn = sorted((row for row in rows if row.name != ELSEWHERE), key=lambda row: -abs(row.relevance))[:most]
    overlay = blend(photo, heat, crop)
    for row in drawn:
        overlay = outline_region(overlay, (masks[row.name] > 0).numpy())
    rest = f"{ELSEWHERE} {number_text(sum(row.relevance for row in rows if row not in drawn), '+.3g')}"
    text = map_text(label, heat, "\n".join(filter(None, [rest, note])))
    marks = [(*_middle(masks[row.name]), f"{row.name}\n{number_text(row.relevance, '+.3g')}") for row in drawn]
    tiles = [Tile(photo, "photo"), Tile(overlay, "by segment", text, heat, marks=marks)]
    drawing: dict[str, Any] = {"title": title, "width": width, "plt_fig_axis": plt_fig_axis, "use_pyplot": use_pyplot}
    return draw_tiles([tiles], LAYOUT, **drawing)


def _middle(mask: Tensor) -> tuple[float, float]:
    """Return x and y of the mean pixel of a mask; raises a ValueError if it is empty."""
    if not (mask > 0).any():
        raise ValueError("segments must each hold a pixel of the photo, but got an empty one.")
    y, x = (mask > 0).nonzero().double().mean(0).tolist()
    return x, y
