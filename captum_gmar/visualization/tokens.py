"""Relevance between tokens: seen from one patch, and on its way through the layers."""

from collections.abc import Sequence
from numbers import Integral
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from captum_gmar.visualization.attribution import ALPHA, draw_single
from captum_gmar.visualization.heat import Array, Heat, Map, Pixels, array_of, heat_of, patches_of, photo_of, scaled
from captum_gmar.visualization.panels import draw_strip, map_text, outline, show
from captum_gmar.visualization.style import number_text, percent_text


def visualize_token_interaction(
    relevance: Map,
    image: Pixels,
    patch: tuple[int, int],
    *,
    title: str | None = None,
    label: str | None = "relevance for the framed patch",
    note: str | None = None,
    cmap: str | None = None,
    alpha_overlay: float = ALPHA,
    plt_fig_axis: tuple[Figure, Any] | None = None,
    use_pyplot: bool = True,
) -> tuple[Figure, list[Axes]]:
    """
    Draws what fed one patch, as :func:`~captum_gmar.visualize_attribution` does, with that patch framed.

    Most of a patch's relevance often stays with itself. The colours therefore end at the others, and what the patch
    keeps stands below the colour bar; where that is more than the others have, it has the last colour.

    Args:
        relevance (Tensor or numpy.ndarray): (rows, columns) of one example, from a method that begins at the patch,
            ``tokens=(row, column)``.
        image (Tensor, numpy.ndarray or PIL.Image.Image): What the model saw of the photo, as
            :func:`~captum_gmar.visualize_attribution` takes it.
        patch (tuple[int, int]): Row and column, from 0 at the top left.
        label (str, optional): What the colour bar measures, and its unit.
            Default: "relevance for the framed patch"

    title, note, cmap, alpha_overlay, plt_fig_axis, use_pyplot are those of
    :func:`~captum_gmar.visualize_attribution`.

    Returns:
        2-element tuple of **figure**, **axes**:
        - **figure** (*matplotlib.figure.Figure*)
        - **axes** (*list of matplotlib.axes.Axes*): photo, heat map and overlay.

    Raises:
        TypeError: if an argument is none of these types.
        ValueError: if shapes or values are none of these, or the patch lies outside the grid.

    Example::

        >>> from captum_gmar import GMARAttribution
        >>> from captum_gmar.demo import load_model, load_scene
        >>> from captum_gmar.visualization import visualize_token_interaction
        >>> scene, patch = load_scene(3), (7, 3)
        >>> relevance = GMARAttribution(load_model(), tokens=patch).relevance(scene.pixel_values, scene.labels[0])
        >>> figure, axes = visualize_token_interaction(relevance[0], scene.image, patch, use_pyplot=False)
        >>> [panel.get_title() for panel in axes]
        ['photo', 'relevance', 'overlay']
    """
    photo, values = photo_of(image), patches_of(relevance, "relevance")
    check_patch(patch, values.shape)
    heat = _scaled_by_others(values, photo, patch)
    itself = f"the framed patch itself keeps {number_text(values[patch])}"
    text = map_text(label, heat, cmap, "\n".join(filter(None, [itself, note])))
    figure, panels = draw_single(photo, heat, title, text, cmap, alpha_overlay, plt_fig_axis, use_pyplot)
    for panel in panels:
        outline(panel, photo, patch, values.shape)
    show(figure, use_pyplot)
    return figure, panels


def visualize_relevance_flow(
    relevance: Map,
    image: Pixels,
    *,
    prefix_share: Map | None = None,
    layers: Sequence[int] | None = None,
    title: str | None = None,
    label: str = "relevance per patch",
    cmap: str | None = None,
    alpha_overlay: float = ALPHA,
    interpolation: str = "nearest",
    plt_fig_axis: tuple[Figure, Any] | None = None,
    use_pyplot: bool = True,
) -> tuple[Figure, list[Axes]]:
    """
    Draws how relevance comes down the layers, from the last to the first, where it is what the method returns.

    Every map has a colour scale of its own, so colours compare places of one layer and not one layer with another.

    Args:
        relevance (Tensor or numpy.ndarray): (layers, rows, columns) of one example, last layer first, as
            ``relevance_flow`` of :class:`~captum_gmar.GMARAttribution` and others returns it.
        image (Tensor, numpy.ndarray or PIL.Image.Image): What the model saw of the photo, as
            :func:`~captum_gmar.visualize_attribution` takes it.
        prefix_share (Tensor or numpy.ndarray, optional): (layers,), from 0 to 1, what the tokens that are no patches
            hold of the relevance: it stands in the titles.
            Default: None
        layers (sequence of int, optional): The layers' numbers.
            Default: None, from the number of maps less 1 down to 0
        label (str, optional): What the colour bars measure, and its unit.
            Default: "relevance per patch"
        plt_fig_axis (tuple, optional): A figure and 1 + layers of its axes to draw in.
            Default: None

    title, cmap, alpha_overlay, interpolation, use_pyplot are those of :func:`~captum_gmar.visualize_attribution`.

    Returns:
        2-element tuple of **figure**, **axes**:
        - **figure** (*matplotlib.figure.Figure*)
        - **axes** (*list of matplotlib.axes.Axes*): the photo and the layers, last layer first.

    Raises:
        TypeError: if an argument is none of these types.
        ValueError: if shapes or values are none of these.

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
    photo, maps = photo_of(image), patches_of(relevance, "relevance", 3)
    numbers = range(len(maps))[::-1] if layers is None else list(layers)
    if len(numbers) != len(maps):
        raise ValueError(f"layers must name each of the {len(maps)} maps. Got {len(numbers)} numbers instead.")
    names = [f"below layer {number_text(number, 'd')}" for number in numbers]
    if prefix_share is not None:
        shares = _shares(prefix_share, len(maps))
        names = [f"{name}\nprefix tokens {percent_text(share)}" for name, share in zip(names, shares, strict=True)]
    heats = [heat_of(layer, photo, f"relevance[{index}]", interpolation) for index, layer in enumerate(maps)]
    figure, panels = draw_strip(
        photo,
        heats,
        names,
        title=title,
        label=label,
        cmap=cmap,
        alpha_overlay=alpha_overlay,
        plt_fig_axis=plt_fig_axis,
        use_pyplot=use_pyplot,
    )
    show(figure, use_pyplot)
    return figure, panels


def _scaled_by_others(relevance: Array, photo: Array, patch: tuple[int, int]) -> Heat:
    """The map with the scale that it has without the patch."""
    heat, others = (
        heat_of(relevance, photo, "relevance"),
        np.delete(relevance, np.ravel_multi_index(patch, relevance.shape)),
    )
    return scaled(others, "relevance")._replace(values=heat.values, label=heat.label) if others.size else heat


def check_patch(patch: object, patches: tuple[int, ...]) -> None:
    """Raises an error unless ``patch`` is the (row, column) of one of so many rows and columns."""
    if not isinstance(patch, tuple) or len(patch) != 2 or not all(isinstance(number, Integral) for number in patch):
        raise TypeError(f"patch must be a tuple (row, column) of integers. Got {patch!r} instead.")
    if not all(0 <= number < count for number, count in zip(patch, patches, strict=True)):
        raise ValueError(
            f"patch must lie within the {patches[0]}x{patches[1]} patch grid (rows x columns, counted from 0). Got "
            f"{patch} instead."
        )


def _shares(prefix_share: Map, maps: int) -> list[float]:
    shares = array_of(prefix_share, "prefix_share")
    if shares.shape != (maps,) or not ((shares >= 0) & (shares <= 1)).all():
        raise ValueError(
            f"prefix_share must be one number from 0 to 1 for each of the {maps} maps. Got {prefix_share!r} instead."
        )
    return [float(share) for share in shares]
