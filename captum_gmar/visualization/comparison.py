"""Several photos, each with the maps of several methods side by side."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from captum_gmar.visualization._heatmap import (
    OUTLIERS,
    Crop,
    Heat,
    Map,
    Pixels,
    blend,
    heat_of,
    outline_box,
    scale_together,
)
from captum_gmar.visualization._panels import OWN_SCALE, Layout, Tile, draw_tiles, map_text, split_evenly

Maps: TypeAlias = Map | Sequence[Map]
Images: TypeAlias = Pixels | Sequence[Pixels]

ROWS = Layout(panel=2.35, gap=0.25, columns=6, name_size=10, text_size=8)
ONE_SCALE = "Maps of one unit\nhave one colour scale."


def visualize_comparison(
    attributions: Mapping[str, Maps],
    images: Images,
    *,
    rows: Sequence[str] = (),
    share_scale: bool = False,
    crop: Crop | Sequence[Crop | None] | None = None,
    box: Crop | None = None,
    title: str | None = None,
    width: float | None = None,
    label: str | Mapping[str, str] | None = None,
    note: str | Mapping[str, str] | None = None,
    smooth: bool = False,
    outlier_perc: float = OUTLIERS,
    plt_fig_axis: tuple[Figure, Any] | None = None,
    use_pyplot: bool = True,
) -> tuple[Figure, list[list[Axes]]]:
    """Draw the maps of several methods side by side: a row for each image, with the photo and a column for each method.
    One image with many methods has several rows.

    With ``rows``, one image has several named rows, such as one for each class.

    Each map has its own colour scale, so colours compare places of one map, not two maps; the colour bar below it has
    the values. With ``share_scale``, maps with the same label share a scale. The scales are those of
    :func:`~captum_gmar.visualize_attribution`.

    Args:
        attributions (dict): Maps by the name of each method, which is the title of its column: one map for each image,
            in a sequence of what :func:`~captum_gmar.visualize_attribution` takes, or in a tensor or array (N, ...).
        images (PIL.Image.Image, Tensor, numpy.ndarray, or sequence of them): The photos, as
            :func:`~captum_gmar.visualize_attribution` takes them, in a sequence, or in a tensor or array of four
            dimensions. A single image and its maps need no sequence.
        rows (sequence of str, optional): Names at the left of the rows. For one image, each method then has one map for
            each row. Default: (), rows without names.
        share_scale (bool, optional): One colour scale for all maps with the same label.
        crop (tuple of float, optional): That of :func:`~captum_gmar.visualize_attribution`, or for several images a
            sequence of them. Default: None, the whole images.
        width (float, optional): Width of the figure in inches. Default: None, 2.35 inches for each panel.
        label (str or dict, optional): Quantity and unit of the colour bars, or a dict of them by method. Default: None,
            "relevance per patch" or "attribution per pixel".
        note (str or dict, optional): A line below each colour bar, such as a limitation of the map, or a dict of them
            by method.
        smooth (bool, optional): Interpolate between the patches.
        plt_fig_axis (tuple, optional): A figure and N × (1 + methods) of its axes to draw in, row by row.

    box, title, outlier_perc, use_pyplot are those of :func:`~captum_gmar.visualize_attribution`.

    Returns:
        tuple: **figure**, and **axes** (*list of list of matplotlib.axes.Axes*): each image's photo and maps.

    Raises:
        TypeError: if attributions or images have none of these types.
        ValueError: if shapes or values are not valid, a method has another number of maps than there are images, a map
            contains NaN or infinity, or ``width`` is too small for the columns.

    Example::

        >>> import torch
        >>> from captum_gmar import visualize_comparison
        >>> maps = {"GMAR": torch.rand(2, 14, 14), "Saliency": torch.rand(2, 3, 224, 224)}
        >>> figure, axes = visualize_comparison(maps, torch.rand(2, 3, 224, 224), use_pyplot=False)
        >>> [panel.get_title() for panel in axes[0]]
        ['photo', 'GMAR', 'Saliency']
    """
    photos, crops, boxes = _fit_images(images, rows, crop, box)
    heats = _heats(attributions, photos, _is_several(images) or bool(rows), outlier_perc)
    if share_scale:
        heats = _share_scales(heats, label, outlier_perc)
    scales, last = ONE_SCALE if share_scale else OWN_SCALE, len(photos) - 1
    tiles = []
    for index, (photo, place, frame) in enumerate(zip(photos, crops, boxes, strict=True)):
        row = [Tile(photo, "photo", scales if index == last else "", row=str(rows[index]) if rows else "")]
        for name, maps in heats.items():
            text = map_text(_text_for_method(label, name), maps[index], _text_for_method(note, name))
            row.append(Tile(blend(photo, maps[index], place, smooth), str(name), text, maps[index]))
        if share_scale and index < last:  # the bars of the last row are those of all
            row = [tile._replace(text="", heat=None) for tile in row]
        if frame is not None:
            row = [tile._replace(image=outline_box(tile.image, frame)) for tile in row]
        tiles += [tile._replace(name="") for tile in row] if index else row
    lines = split_evenly(tiles, ROWS.columns if len(photos) == 1 else len(heats) + 1)
    figure, panels = draw_tiles(lines, ROWS, title=title, width=width, plt_fig_axis=plt_fig_axis, use_pyplot=use_pyplot)
    return figure, [panels[start : start + len(heats) + 1] for start in range(0, len(panels), len(heats) + 1)]


def _fit_images(
    images: Any, rows: Sequence[str], crop: Any, box: Crop | None
) -> tuple[list[Image.Image], list[Crop | None], list[Crop | None]]:
    """Return photos no larger than panels can show, and where their maps and a box are in them."""
    each = list(images) if _is_several(images) else [images]
    if not each:
        raise ValueError("images must be at least one image, but got none.")
    crops = crop if _is_several(images) and crop is not None else [crop] * len(each)
    if len(crops) != len(each):
        raise ValueError(f"crop must be one for each of the {len(each)} images, but got {len(crops)}.")
    if rows and _is_several(images) and len(rows) != len(each):
        raise ValueError(f"rows must name each of the {len(each)} images, but got {len(rows)} names.")
    fitted = [ROWS.fit(image, crop=place, box=box) for image, place in zip(each, crops, strict=True)]
    if rows and not _is_several(images):
        fitted *= len(rows)
    return [photo for photo, _, _ in fitted], [place for _, place, _ in fitted], [frame for _, _, frame in fitted]


def _share_scales(
    heats: Mapping[str, list[Heat]], label: str | Mapping[str, str] | None, outlier_perc: float
) -> dict[str, list[Heat]]:
    """Return the maps of every method in the scale of all maps with the same label."""
    names_by_label: dict[Any, list[str]] = {}
    for name, maps in heats.items():
        names_by_label.setdefault((_text_for_method(label, name), maps[0].is_of_pixels), []).append(name)
    shared: dict[str, list[Heat]] = {}
    for names in names_by_label.values():
        scaled = iter(scale_together([heat for name in names for heat in heats[name]], "attributions", outlier_perc))
        shared |= {name: [next(scaled) for _ in heats[name]] for name in names}
    return {name: shared[name] for name in heats}


def _text_for_method(text: str | Mapping[str, str] | None, name: str) -> str | None:
    return text.get(name, "") if isinstance(text, Mapping) else text


def _is_several(images: Images) -> bool:
    return np.ndim(images) == 4 if isinstance(images, Tensor | np.ndarray) else isinstance(images, Sequence)


def _heats(
    attributions: Mapping[str, Any], photos: list[Image.Image], several: bool, outlier_perc: float
) -> dict[str, list[Heat]]:
    """Return the maps of every method, one for each photo."""
    if not isinstance(attributions, Mapping):
        raise TypeError(
            f"attributions must be a mapping from method names to maps, but got {type(attributions).__name__}. Pass "
            "{{name: attributions}} for one."
        )
    if not attributions:
        raise ValueError("attributions must hold the maps of at least one method, but got none.")
    heats = {}
    for key, method_maps in attributions.items():
        name = f"attributions[{key!r}]"
        maps = _each_map(method_maps, name, len(photos)) if several else [method_maps]
        pairs = zip(maps, photos, strict=True)
        heats[key] = [heat_of(photo_map, photo, name, outlier_perc) for photo_map, photo in pairs]
    return heats


def _each_map(attributions: Any, name: str, images: int) -> list[Map]:
    if not isinstance(attributions, Tensor | np.ndarray | Sequence):
        raise TypeError(f"{name} must be a sequence, tensor or array of maps, but got {type(attributions).__name__}.")
    maps = list(attributions)
    if len(maps) != images:
        raise ValueError(
            f"{name} must hold one map per image, {images}, but got {len(maps)}. Pass one image and its maps without "
            "the dimension of examples."
        )
    return maps
