"""Several photos, each with the maps of several methods side by side."""

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any, TypeAlias

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from captum_gmar.visualization.attribution import ALPHA
from captum_gmar.visualization.heat import OUTLIERS, Array, Heat, Map, Pixels, heat_of, photo_of
from captum_gmar.visualization.panels import (
    OWN_SCALE,
    Layout,
    bar_height,
    draw_map,
    draw_overlay,
    draw_photo,
    draw_title,
    draw_values,
    given_axes,
    make_panels,
    map_text,
    show,
    wrapped,
)

Maps: TypeAlias = Map | Sequence[Map]
Images: TypeAlias = Pixels | Sequence[Pixels]

DRAWINGS = ("blended_heat_map", "heat_map")
ROWS = Layout(panel=2.35, gap=0.25, columns=6, name_size=10, bar_size=8)
ROW_LETTERS = ROWS.text, ROWS.bar_size


def visualize_comparison(
    attributions: Mapping[str, Maps],
    images: Images,
    *,
    method: str = "blended_heat_map",
    title: str | None = None,
    label: str | Mapping[str, str] | None = None,
    note: str | Mapping[str, str] | None = None,
    cmap: str | None = None,
    alpha_overlay: float = ALPHA,
    interpolation: str = "nearest",
    outlier_perc: float = OUTLIERS,
    plt_fig_axis: tuple[Figure, Any] | None = None,
    use_pyplot: bool = True,
) -> tuple[Figure, list[list[Axes]]]:
    """
    Draws the maps of several methods side by side: a row for each image, with the photo and a column for each method.
    One image with many methods takes several rows.

    Every map has a colour scale of its own, so colours compare places of one map, not one map with another; the colour
    bar below each gives the values. The scales are those of :func:`~captum_gmar.visualize_attribution`, also in that
    maps with negative values have their colours around zero.

    Args:
        attributions (dict): From the name of each method, which becomes the title of its column, to its maps, as many
            as there are images: a sequence of what :func:`~captum_gmar.visualize_attribution` takes, or a tensor or
            array of them, (N, ...).
        images (Tensor, numpy.ndarray, PIL.Image.Image, or sequence of them): What the model saw of the photos, as
            :func:`~captum_gmar.visualize_attribution` takes it: a sequence, or a tensor or array of four dimensions.
            One image alone may be passed as it is; each method then has one map, as it is.
        method (str, optional): "blended_heat_map", the map over the photo, or "heat_map", the map alone.
            Default: "blended_heat_map"
        label (str or dict, optional): What the colour bars measure, and its unit; where that differs, from the name of
            each method to its label.
            Default: None, "relevance per patch" or "attribution per pixel"
        note (str or dict, optional): A line below each colour bar, of what the map does not say, for example; where it
            differs, from the name of each method to its note.
            Default: None
        plt_fig_axis (tuple, optional): A figure and N × (1 + methods) of its axes to draw in, row by row.
            Default: None

    title, cmap, alpha_overlay, interpolation, outlier_perc, use_pyplot are those of
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
    if method not in DRAWINGS:
        raise ValueError(f"method must be one of {list(DRAWINGS)}. Got {method!r} instead.")
    photos = [photo_of(image) for image in _each_image(images)]
    heats = _heats(attributions, photos, _is_several(images), interpolation, outlier_perc)
    texts = [
        [
            wrapped(
                map_text(_text_for_method(label, name), maps[index], cmap, _text_for_method(note, name)), *ROW_LETTERS
            )
            for name, maps in heats.items()
        ]
        for index in range(len(photos))
    ]
    names = ["photo", *map(str, heats)]
    bottom_space = bar_height(chain(*texts), ROWS)
    figure, axes = plt_fig_axis or make_panels(photos, names, bottom_space, ROWS, title, use_pyplot)
    panels = given_axes(axes, len(photos) * len(names))
    rows = [panels[start : start + len(names)] for start in range(0, len(panels), len(names))]
    for index, (photo, (first, *others)) in enumerate(zip(photos, rows, strict=True)):
        draw_photo(first, photo)
        maps = [(method_maps[index], text) for method_maps, text in zip(heats.values(), texts[index], strict=True)]
        for panel, (heat, text) in zip(others, maps, strict=True):
            if method == "heat_map":
                draw_map(panel, heat, cmap)
            else:
                draw_overlay(panel, heat, photo, cmap, alpha_overlay)
            draw_values(figure, panel, heat, text, ROWS.bar_size)
    for panel, name in zip(rows[0], names, strict=True):
        panel.set_title(wrapped(name, ROWS.text, ROWS.name_size), fontsize=ROWS.name_size, parse_math=False)
    rows[-1][0].set_xlabel(OWN_SCALE, fontsize=ROWS.bar_size)
    if plt_fig_axis:
        draw_title(figure, title)
    show(figure, use_pyplot)
    return figure, rows


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
    attributions: Mapping[str, Any], photos: list[Array], several: bool, interpolation: str, outlier_perc: float
) -> dict[str, list[Heat]]:
    """The maps of every method, one for each photo."""
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
        heats[key] = [heat_of(photo_map, photo, name, interpolation, outlier_perc) for photo_map, photo in pairs]
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
