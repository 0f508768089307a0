"""A video with its relevance: as a strip of frames, and as frames of a film, all in one colour scale."""

from collections.abc import Sequence
from math import ceil

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from captum_gmar.visualization.attribution import ALPHA
from captum_gmar.visualization.heat import OUTLIERS, Array, Heat, Map, Pixels, array_of, heat_of, photo_of, scaled
from captum_gmar.visualization.panels import (
    PAD_INCHES,
    Layout,
    PanelRow,
    bar_height,
    draw_overlay,
    draw_photo,
    draw_values,
    make_grid,
    map_text,
    panel_height,
    show,
    text_height,
    wrapped,
)

FRAMES = Layout(panel=1.4, gap=0.12, columns=8, name_size=8, bar_size=7)


def visualize_video(
    attribution: Map,
    frames: Tensor | Array | Sequence[Pixels],
    *,
    title: str | None = None,
    label: str | None = None,
    note: str | None = None,
    cmap: str | None = None,
    alpha_overlay: float = ALPHA,
    outlier_perc: float = OUTLIERS,
    use_pyplot: bool = True,
) -> tuple[Figure, list[list[Axes]]]:
    """
    Draws a video as a strip of frames, and below each of them the frame with its relevance over it.

    All frames share one colour scale, so that colours compare one moment with another: that of
    :func:`~captum_gmar.visualize_attribution`, over all values of the video. A tube of several frames has its colour in
    each of them.

    Args:
        attribution (Tensor or numpy.ndarray): Of one video: (time, rows, columns), the relevance of tubes that divide
            frames, height and width evenly; or (frames, channels, height, width), whose channels are summed.
        frames (Tensor, numpy.ndarray or sequence): What the model saw, not normalised: each frame as
            :func:`~captum_gmar.visualize_attribution` takes an image.
        title, label, note, cmap, alpha_overlay, outlier_perc, use_pyplot: those of
            :func:`~captum_gmar.visualize_attribution`.

    Returns:
        2-element tuple of **figure**, **axes**:
        - **figure** (*matplotlib.figure.Figure*)
        - **axes** (*list of list of matplotlib.axes.Axes*): the frames, and the frames with relevance over them.

    Raises:
        TypeError: if attribution or frames are none of these types.
        ValueError: if shapes or values are none of these, or the attribution holds NaN or infinity.

    Example::

        >>> import torch
        >>> from captum_gmar import visualize_video
        >>> figure, (frames, overlays) = visualize_video(
        ...     torch.rand(2, 7, 7), torch.rand(4, 3, 56, 56), use_pyplot=False
        ... )
        >>> [panel.get_title() for panel in frames]
        ['frame 0', 'frame 1', 'frame 2', 'frame 3']
    """
    photos = _photos(frames)
    heats = _frame_heats(attribution, photos, outlier_perc)
    text = wrapped(map_text(label, heats[0], cmap, note), FRAMES.text, FRAMES.bar_size)
    columns = min(len(photos), FRAMES.columns)
    lines = ceil(len(photos) / columns)
    figure, panels = make_grid(_strip_rows(photos[0], lines, text), 2 * lines * columns, FRAMES, title, use_pyplot)
    drawn: list[list[Axes]] = [[], []]
    for place, panel in enumerate(panels):
        line, column = divmod(place, columns)
        number = line // 2 * columns + column
        if number >= len(photos):
            panel.remove()
            continue
        drawn[line % 2].append(panel)
        if line % 2:
            draw_overlay(panel, heats[number], photos[number], cmap, alpha_overlay)
        else:
            draw_photo(panel, photos[number])
            panel.set_title(f"frame {number}", fontsize=FRAMES.name_size)
    draw_values(figure, panels[(2 * lines - 1) * columns], heats[0], text, FRAMES.bar_size)
    show(figure, use_pyplot)
    return figure, drawn


def overlay_video(
    attribution: Map,
    frames: Tensor | Array | Sequence[Pixels],
    *,
    cmap: str | None = None,
    alpha_overlay: float = ALPHA,
    outlier_perc: float = OUTLIERS,
) -> list[Image.Image]:
    """
    Every frame of a video with its relevance over it, in the colours of :func:`visualize_video`, for a film.

    Args:
        attribution, frames, cmap, alpha_overlay, outlier_perc: those of :func:`visualize_video`.

    Returns:
        list of PIL.Image.Image: as large as the frames. Pillow writes them as a GIF:
        ``first.save("map.gif", save_all=True, append_images=others, duration=100, loop=0)``.

    Raises:
        TypeError, ValueError: as :func:`visualize_video`.

    Example::

        >>> import torch
        >>> from captum_gmar import overlay_video
        >>> first, *others = overlay_video(torch.rand(2, 7, 7), torch.rand(4, 3, 56, 56))
        >>> first.size, len(others)
        ((56, 56), 3)
    """
    photos = _photos(frames)
    heats = _frame_heats(attribution, photos, outlier_perc)
    return [_blended(photo, heat, cmap, alpha_overlay) for photo, heat in zip(photos, heats, strict=True)]


def _blended(photo: Array, heat: Heat, cmap: str | None, alpha_overlay: float) -> Image.Image:
    unit = (heat.values - heat.low) / (heat.high - heat.low)
    opacity = (alpha_overlay * heat.strength)[..., None]
    pixels = (1 - opacity) * photo + opacity * colormaps[cmap or heat.cmap](unit)[..., :3]
    return Image.fromarray(np.rint(255 * pixels).astype(np.uint8))


def _strip_rows(photo: Array, lines: int, text: str) -> list[PanelRow]:
    """Of frames and overlays, in turns; the last has the colour bar below it."""
    height = panel_height(FRAMES.panel, photo)
    top_space = text_height(["frame"], FRAMES.panel, FRAMES.name_size) + PAD_INCHES
    rows = [PanelRow(top_space, height, FRAMES.gap), PanelRow(0, height, FRAMES.gap)] * lines
    return [*rows[:-1], PanelRow(0, height, bar_height([text], FRAMES))]


def _photos(frames: Tensor | Array | Sequence[Pixels]) -> list[Array]:
    if not isinstance(frames, Tensor | np.ndarray | Sequence):
        raise TypeError(f"frames must be a tensor, an array or a sequence of images. Got {frames!r} instead.")
    photos = [photo_of(frame) for frame in frames]
    if not photos or any(photo.shape != photos[0].shape for photo in photos):
        sizes = sorted({photo.shape[:2] for photo in photos})
        raise ValueError(f"frames must be at least one, all of one size. Got {sizes or 'none'} instead.")
    return photos


def _frame_heats(attribution: Map, photos: Sequence[Array], outlier_perc: float) -> list[Heat]:
    """Of each frame, in the scale of all."""
    maps = array_of(attribution, "attribution")
    if maps.ndim not in (3, 4) or not len(maps) or len(photos) % len(maps):
        raise ValueError(
            "attribution must be of one video, (time, rows, columns) with a time that divides the frames, "
            f"{len(photos)}, evenly, or (frames, channels, height, width). Got shape {maps.shape} instead."
        )
    each = [
        heat_of(moment, photo, "attribution")
        for moment, photo in zip(maps.repeat(len(photos) // len(maps), 0), photos, strict=True)
    ]
    scale = scaled(np.stack([heat.values for heat in each]), "attribution", outlier_perc)
    label = "relevance per tube" if maps.ndim == 3 else each[0].label
    return [scale._replace(values=heat.values, label=label) for heat in each]
