"""Several photos, each with the maps of several methods side by side."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from captum_gmar.visualization._heatmap import OUTLIERS, Crop, Heat, Map, Pixels, blend, heat_of
from captum_gmar.visualization._panels import OWN_SCALE, Layout, Tile, draw_tiles, map_text, split_evenly

Maps: TypeAlias = Map | Sequence[Map]
Images: TypeAlias = Pixels | Sequence[Pixels]

ROWS = Layout(panel=2.35, gap=0.25, columns=6, name_size=10, text_size=8)


def visualize_comparison(
    attributions: Mapping[str, Maps],
    images: Images,
    *,
    crop: Crop | Sequence[Crop | None] | None = None,
    title: str | None = None,
    label: str | Mapping[str, str] | None = None,
    note: str | Mapping[str, str] | None = None,
    smooth: bool = False,
    outlier_perc: float = OUTLIERS,
    plt_fig_axis: tuple[Figure, Any] | None = None,
    use_pyplot: bool = True,
) -> tuple[Figure, list[list[Axes]]]:
    """Draw the maps of several methods side by side: a row for each image, with the photo and a column for each method.
    One image with many methods takes several rows.

    Every map has a colour scale of its own, so colours compare places of one map, not one map with another; the colour
    bar below each gives the values. The scales are those of :func:`~captum_gmar.visualize_attribution`, also in that
    maps with negative values have their colours around zero.

    Args:
        attributions (dict): From the name of each method, which becomes the title of its column, to its maps, as many
            as there are images: a sequence of what :func:`~captum_gmar.visualize_attribution` takes, or a tensor or
            array of them, (N, ...).
        images (PIL.Image.Image, Tensor, numpy.ndarray, or sequence of them): The photos, as
            :func:`~captum_gmar.visualize_attribution` takes them: a sequence, or a tensor or array of four dimensions.
            One image alone may be passed as it is; each method then has one map, as it is.
        crop (tuple of float, optional): That of :func:`~captum_gmar.visualize_attribution`, of the image; for several
            images a sequence of them.
            Default: None, the whole images
        label (str or dict, optional): What the colour bars measure, and its unit; where that differs, from the name of
            each method to its label.
            Default: None, "relevance per patch" or "attribution per pixel"
        note (str or dict, optional): A line below each colour bar, of what the map does not say, for example; where it
            differs, from the name of each method to its note.
        smooth (bool, optional): Interpolate between the patches.
        plt_fig_axis (tuple, optional): A figure and N × (1 + methods) of its axes to draw in, row by row.

    title, outlier_perc, use_pyplot are those of
    :func:`~captum_gmar.visualize_attribution`.

    Returns:
        2-element tuple of **figure**, **axes**:
        - **figure** (*matplotlib.figure.Figure*)
        - **axes** (*list of list of matplotlib.axes.Axes*): for each image, its photo and its maps.

    Raises:
        TypeError: if attributions or images are none of these types.
        ValueError: if shapes or values are none of these, a method has not as many maps as there are images, or a map
            holds NaN or infinity.

    Example::

        >>> import torch
        >>> from captum_gmar import visualize_comparison
        >>> maps = {"GMAR": torch.rand(2, 14, 14), "Saliency": torch.rand(2, 3, 224, 224)}
        >>> figure, axes = visualize_comparison(maps, torch.rand(2, 3, 224, 224), use_pyplot=False)
        >>> [panel.get_title() for panel in axes[0]]
        ['photo', 'GMAR', 'Saliency']
    """
    photos, crops = _fit_images(images, crop)
    heats = _heats(attributions, photos, _is_several(images), outlier_perc)
    tiles = []
    for index, (photo, place) in enumerate(zip(photos, crops, strict=True)):
        is_first, is_last = index == 0, index == len(photos) - 1
        tiles.append(Tile(photo, "photo" if is_first else "", OWN_SCALE if is_last else ""))
        for name, maps in heats.items():
            text = map_text(_text_for_method(label, name), maps[index], _text_for_method(note, name))
            tiles.append(
                Tile(blend(photo, maps[index], place, smooth), str(name) if is_first else "", text, maps[index])
            )
    lines = split_evenly(tiles, ROWS.columns if len(photos) == 1 else len(heats) + 1)
    figure, panels = draw_tiles(lines, ROWS, title=title, plt_fig_axis=plt_fig_axis, use_pyplot=use_pyplot)
    return figure, [panels[start : start + len(heats) + 1] for start in range(0, len(panels), len(heats) + 1)]


def _fit_images(images: Any, crop: Any) -> tuple[list[Image.Image], list[Crop | None]]:
    """Return photos no larger than panels can show, and where their maps are in them."""
    each = _each_image(images)
    crops = crop if _is_several(images) and crop is not None else [crop] * len(each)
    if len(crops) != len(each):
        raise ValueError(f"crop must be one for each of the {len(each)} images. Got {len(crops)} instead.")
    fitted = [ROWS.fit(image, crop=place) for image, place in zip(each, crops, strict=True)]
    return [photo for photo, _ in fitted], [place for _, place in fitted]


def _text_for_method(text: str | Mapping[str, str] | None, name: str) -> str | None:
    return text.get(name, "") if isinstance(text, Mapping) else text


def _is_several(images: Images) -> bool:
    return np.ndim(images) == 4 if isinstance(images, Tensor | np.ndarray) else isinstance(images, Sequence)


def _each_image(images: Any) -> list[Pixels]:
    several: list[Pixels] = list(images) if _is_several(images) else [images]
    if not several:
        raise ValueError("images must be at least one image. Got none instead.")
    return several


def _heats(
    attributions: Mapping[str, Any], photos: list[Image.Image], several: bool, outlier_perc: float
) -> dict[str, list[Heat]]:
    """Return the maps of every method, one for each photo."""
    if not isinstance(attributions, Mapping):
        raise TypeError(
            "attributions must be a mapping from method names to maps. "
            f"Got {type(attributions).__name__} instead. Of one method, pass {{name: attributions}}."
        )
    if not attributions:
        raise ValueError("attributions must hold the maps of at least one method. Got none instead.")
    heats = {}
    for key, method_maps in attributions.items():
        name = f"attributions[{key!r}]"
        maps = _each_map(method_maps, name, len(photos)) if several else [method_maps]
        pairs = zip(maps, photos, strict=True)
        heats[key] = [heat_of(photo_map, photo, name, outlier_perc) for photo_map, photo in pairs]
    return heats


def _each_map(attributions: Any, name: str, images: int) -> list[Map]:
    if not isinstance(attributions, Tensor | np.ndarray | Sequence):
        raise TypeError(
            f"{name} must be a sequence, tensor or array of maps. Got {type(attributions).__name__} instead."
        )
    maps = list(attributions)
    if len(maps) != images:
        raise ValueError(
            f"{name} must hold one map per image, {images}. Got {len(maps)} instead. Of one image, pass both image and "
            "maps without the dimension of examples."
        )
    return maps
