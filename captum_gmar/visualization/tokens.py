"""Plots of relevance from one patch, and of relevance below each layer."""

from collections.abc import Sequence
from numbers import Integral
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from captum_gmar.visualization._heatmap import Crop, Map, Pixels, array_of, heat_of, patches_of, scale
from captum_gmar.visualization._panels import STRIP, draw_strip, map_text
from captum_gmar.visualization._style import number_text, percent_text
from captum_gmar.visualization.attribution import LAYOUT, draw_single


def visualize_token_interaction(
    relevance: Map,
    image: Pixels,
    patch: tuple[int, int],
    *,
    crop: Crop | None = None,
    title: str | None = None,
    label: str | None = "relevance for the framed patch",
    note: str | None = None,
    width: float | None = None,
    plt_fig_axis: tuple[Figure, Any] | None = None,
    use_pyplot: bool = True,
) -> tuple[Figure, list[Axes]]:
    """Draw the relevance of all patches to one patch, which is framed, as :func:`~captum_gmar.visualize_attribution`
    does.

    A patch is often most relevant to itself. The scale therefore ends at the other patches; the text below the colour
    bar has the framed patch's own relevance.

    Args:
        relevance (Tensor or numpy.ndarray): Relevance (rows, columns) of one example, from a method with
            ``tokens=(row, column)``.
        patch (tuple[int, int]): Row and column, from 0 at the top left.
        label (str, optional): Quantity and unit of the colour bar. Default: "relevance for the framed patch".

    image, crop, title, note, width, plt_fig_axis, use_pyplot are those of :func:`~captum_gmar.visualize_attribution`.

    Returns:
        tuple: **figure**, and **axes** (*list of matplotlib.axes.Axes*): photo, patches and smooth map.

    Raises:
        TypeError: if an argument has none of these types.
        ValueError: if shapes or values are not valid, or the patch is outside the grid.

    Example::

        >>> from captum_gmar import GMARAttribution
        >>> from captum_gmar.demo import load_model, load_scene
        >>> from captum_gmar.visualization import visualize_token_interaction
        >>> scene, patch = load_scene(3), (7, 3)
        >>> relevance = GMARAttribution(load_model(), tokens=patch).relevance(scene.pixel_values, scene.labels[0])
        >>> figure, axes = visualize_token_interaction(relevance[0], scene.image, patch, use_pyplot=False)
        >>> [panel.get_title() for panel in axes]
        ['photo', 'patches', 'smooth']
    """
    values = patches_of(relevance, "relevance")
    check_patch(patch, values.shape)
    photo, crop = LAYOUT.fit(image, crop=crop)
    heat = heat_of(values, photo, "relevance")
    if (others := np.delete(values, np.ravel_multi_index(patch, values.shape))).size:
        heat = scale(others, "relevance")._replace(values=heat.values)
    itself = f"the framed patch itself keeps {number_text(values[patch])}"
    text = map_text(label, heat, "\n".join(filter(None, [itself, note])))
    box = patch_box(patch, values.shape, crop or (0, 0, *photo.size))
    drawing: dict[str, Any] = {"title": title, "width": width, "plt_fig_axis": plt_fig_axis, "use_pyplot": use_pyplot}
    return draw_single(photo, heat, text, crop, box, None, **drawing)


def visualize_relevance_flow(
    relevance: Map,
    image: Pixels,
    *,
    prefix_share: Map | None = None,
    layers: Sequence[int] | None = None,
    crop: Crop | None = None,
    title: str | None = None,
    label: str = "relevance per patch",
    smooth: bool = False,
    plt_fig_axis: tuple[Figure, Any] | None = None,
    use_pyplot: bool = True,
) -> tuple[Figure, list[Axes]]:
    """Draw the relevance below each layer, from the last layer to the first, whose map the method returns.

    Each map has its own colour scale, so colours compare places of one layer, not two layers.

    Args:
        relevance (Tensor or numpy.ndarray): (layers, rows, columns) of one example, last layer first, as
            ``relevance_flow`` of :class:`~captum_gmar.GMARAttribution` and others returns it.
        prefix_share (Tensor or numpy.ndarray, optional): (layers,), share of the relevance on prefix tokens, from 0 to
            1, for the titles.
        layers (sequence of int, optional): Numbers of the layers. Default: None, from the number of maps minus 1 down
            to 0.
        label (str, optional): Quantity and unit of the colour bars. Default: "relevance per patch".
        plt_fig_axis (tuple, optional): A figure and 1 + layers of its axes to draw in.

    image, crop, title, use_pyplot are those of :func:`~captum_gmar.visualize_attribution`, smooth that of
    :func:`~captum_gmar.visualize_comparison`.

    Returns:
        tuple: **figure**, and **axes** (*list of matplotlib.axes.Axes*): the photo and the layers, last layer first.

    Raises:
        TypeError: if an argument has none of these types.
        ValueError: if shapes or values are not valid.

    Example::

        >>> from captum_gmar import GMARAttribution
        >>> from captum_gmar.demo import load_model, load_scene
        >>> from captum_gmar.visualization import visualize_relevance_flow
        >>> scene = load_scene(3)
        >>> flow = GMARAttribution(load_model()).relevance_flow(scene.pixel_values, scene.labels[0])
        >>> figure, axes = visualize_relevance_flow(
        ...     flow.relevance[0], scene.image, prefix_share=flow.prefix_share[0], layers=flow.layers, use_pyplot=False)
        >>> axes[1].get_title()
        'below layer 5\\nprefix tokens 55 %'
    """
    maps = patches_of(relevance, "relevance", 3)
    numbers = range(len(maps))[::-1] if layers is None else list(layers)
    if len(numbers) != len(maps):
        raise ValueError(f"layers must name each of the {len(maps)} maps, but got {len(numbers)} numbers.")
    names = [f"below layer {number_text(number, 'd')}" for number in numbers]
    if prefix_share is not None:
        shares = _shares(prefix_share, len(maps))
        names = [f"{name}\nprefix tokens {percent_text(share)}" for name, share in zip(names, shares, strict=True)]
    photo, crop = STRIP.fit(image, crop=crop)
    heats = [heat_of(layer, photo, f"relevance[{index}]") for index, layer in enumerate(maps)]
    options: dict[str, Any] = {"title": title, "plt_fig_axis": plt_fig_axis, "use_pyplot": use_pyplot}
    return draw_strip(photo, heats, names, crop=crop, smooth=smooth, label=label, **options)


def patch_box(patch: tuple[int, int], grid: tuple[int, ...], crop: Crop) -> Crop:
    """Return the corners of the patch (row, column) of a grid of so many rows and columns over a crop."""
    left, top, right, bottom = crop
    (row, column), height, width = patch, (bottom - top) / grid[0], (right - left) / grid[1]
    return left + column * width, top + row * height, left + (column + 1) * width, top + (row + 1) * height


def check_patch(patch: object, patches: tuple[int, ...]) -> None:
    """Raise an error unless ``patch`` is the (row, column) of one of so many rows and columns."""
    if not isinstance(patch, tuple) or len(patch) != 2 or not all(isinstance(number, Integral) for number in patch):
        raise TypeError(f"patch must be a tuple (row, column) of integers, but got {patch!r}.")
    if not all(0 <= number < count for number, count in zip(patch, patches, strict=True)):
        raise ValueError(f"patch must be in the {patches[0]}x{patches[1]} patch grid, counted from 0, but got {patch}.")


def _shares(prefix_share: Map, maps: int) -> list[float]:
    shares = array_of(prefix_share, "prefix_share")
    if shares.shape != (maps,) or not ((shares >= 0) & (shares <= 1)).all():
        raise ValueError(f"prefix_share must be a number from 0 to 1 for each of {maps} maps, but got {prefix_share}.")
    return [float(share) for share in shares]
