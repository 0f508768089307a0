"""Plots of a video's relevance as a strip of frames."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from captum_gmar.visualization._heatmap import (
    OUTLIERS,
    Array,
    Crop,
    Heat,
    Map,
    Pixels,
    array_of,
    blend,
    heat_of,
    photo_of,
    scale_together,
)
from captum_gmar.visualization._panels import Layout, Tile, draw_tiles, map_text, split_evenly

Frames = Tensor | Array | Sequence[Pixels]
STRIP_OF_FRAMES = Layout(panel=1.4, gap=0.12, columns=8, name_size=8, text_size=7)


def visualize_video(
    attribution: Map,
    frames: Frames,
    *,
    crop: Crop | None = None,
    title: str | None = None,
    label: str | None = None,
    note: str | None = None,
    smooth: bool = False,
    outlier_perc: float = OUTLIERS,
    use_pyplot: bool = True,
) -> tuple[Figure, list[list[Axes]]]:
    """Draw a video as a strip of frames, and below each frame the same with its relevance.

    All frames share one colour scale, so colours compare moments: that of :func:`~captum_gmar.visualize_attribution`,
    over all values of the video. A tube of several frames has the same colour in each of them.

    Args:
        attribution (Tensor or numpy.ndarray): Relevance (time, rows, columns) of one video's tubes, which divide the
            frames evenly; or attributions (frames, channels, height, width), whose channels are summed.
        frames (Tensor, numpy.ndarray or sequence): Frames of the model's input, all of one size, each as
            :func:`~captum_gmar.visualize_attribution` takes an image.
        smooth (bool, optional): Interpolate between the patches.
        crop, title, label, note, outlier_perc, use_pyplot: those of :func:`~captum_gmar.visualize_attribution`.

    Returns:
        tuple: **figure**, and **axes** (*list of list of matplotlib.axes.Axes*): the frames, and the frames with
        relevance over them.

    Raises:
        TypeError: if attribution or frames have none of these types.
        ValueError: if shapes or values are not valid, or the attribution contains NaN or infinity.

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
    pairs: list[tuple[Tile, Tile]] = []
    for number, (each, heat) in enumerate(zip(photos, heats, strict=True)):
        photo, place = STRIP_OF_FRAMES.fit(each, crop=crop)
        pairs.append((Tile(photo, f"frame {number}"), Tile(blend(photo, heat, place, smooth))))
    groups = split_evenly(pairs, STRIP_OF_FRAMES.columns)
    lines = [list(line) for group in groups for line in zip(*group, strict=True)]
    whole = heats[0]._replace(values=np.stack([heat.values for heat in heats]))
    text = map_text("relevance per tube" if label is None and not whole.is_of_pixels else label, whole, note)
    lines[-1][0] = lines[-1][0]._replace(text=text, heat=whole, span=len(lines[-1]))
    figure, panels = draw_tiles(lines, STRIP_OF_FRAMES, title=title, use_pyplot=use_pyplot)
    drawn: list[list[Axes]] = [[], []]
    for number, line in enumerate(lines):
        drawn[number % 2] += panels[: len(line)]
        del panels[: len(line)]
    return figure, drawn


def _photos(frames: Any) -> list[Image.Image]:
    if not isinstance(frames, Tensor | np.ndarray | Sequence):
        raise TypeError(f"frames must be a tensor, an array or a sequence of images, but got {frames!r}.")
    photos = [photo_of(frame) for frame in frames]
    if len({photo.size for photo in photos}) != 1:
        sizes = sorted({photo.size[::-1] for photo in photos})
        raise ValueError(f"frames must be at least one, all of one size, but got {sizes or 'none'}.")
    return photos


def _frame_heats(attribution: Map, photos: Sequence[Image.Image], outlier_perc: float) -> list[Heat]:
    """Return the map of each frame, in the scale of all."""
    maps = array_of(attribution, "attribution")
    if maps.ndim not in (3, 4) or not maps.size or len(photos) % len(maps):
        raise ValueError(
            "attribution must be of one video, (time, rows, columns) with a time that divides the frames, "
            f"{len(photos)}, evenly, or (frames, channels, height, width), but got shape {maps.shape}."
        )
    heats = [heat_of(moment, photos[0], "attribution") for moment in maps]
    frames = len(photos) // len(maps)
    return [heat for heat in scale_together(heats, "attribution", outlier_perc) for _ in range(frames)]
