"""Attention heads: how much each matters, and where each looks."""

from math import floor, log10
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from captum_gmar.visualization.attribution import ALPHA
from captum_gmar.visualization.heat import Array, Heat, Map, Pixels, array_of, heat_of, patches_of, photo_of, scaled
from captum_gmar.visualization.panels import (
    MARGIN_INCHES,
    draw_strip,
    draw_title,
    given_axes,
    make_figure,
    outline,
    show,
    text_height,
    tick_labels,
    title_size,
)
from captum_gmar.visualization.style import number_text
from captum_gmar.visualization.tokens import check_patch

CELL_WIDTH, CELL_HEIGHT, SPREAD_HEIGHT = 0.62, 0.3, 0.42  # inches
CELLS_WIDEST = 8.2  # inches of cells, which are narrower where there are more heads
AXES_INCHES, SCALE_INCHES = 0.8, 1.2
VALUE_SIZE = 8.5  # points, in cells of CELL_WIDTH


def visualize_head_importance(
    importance: Map,
    *,
    spread: Map | None = None,
    title: str | None = None,
    label: str = "head importance, share of its layer",
    cmap: str | None = None,
    plt_fig_axis: tuple[Figure, Any] | None = None,
    use_pyplot: bool = True,
) -> tuple[Figure, list[Axes]]:
    """
    Draws how much each head matters, a row for each layer and a column for each head, with the values in the cells.

    Layer 0, next to the image, is at the top; the last layer, next to the classifier, at the bottom. The colours run
    from zero to the largest value, and where there are negative ones as far down as up.

    Args:
        importance (Tensor or numpy.ndarray): (layers, heads), first layer first, for example of one example of
            ``GMARAttribution.head_importance`` or its mean over many.
        spread (Tensor or numpy.ndarray, optional): Of the same shape, what stands after ± below each value: the
            standard deviation over examples, say.
            Default: None
        title (str, optional): Above the whole, wrapped where it is long.
            Default: None
        label (str, optional): What the colour bar measures, and its unit.
            Default: "head importance, share of its layer"
        cmap (str, optional): A Matplotlib colour map. By default "viridis", or "RdBu_r" if there are negative values.
            Default: None
        plt_fig_axis (tuple, optional): A figure and one of its axes to draw in.
            Default: None
        use_pyplot (bool, optional): As in Captum: whether to make the figure with pyplot and show it. Without, the
            figure is only returned.
            Default: True

    Returns:
        2-element tuple of **figure**, **axes**:
        - **figure** (*matplotlib.figure.Figure*)
        - **axes** (*list of matplotlib.axes.Axes*): the one there is.

    Raises:
        TypeError: if importance or spread are neither tensor nor array.
        ValueError: if they are not of one shape (layers, heads), or hold NaN or infinity.

    Example::

        >>> from captum_gmar import GMARAttribution
        >>> from captum_gmar.demo import load_model, load_scene
        >>> from captum_gmar.visualization import visualize_head_importance
        >>> scene = load_scene(3)
        >>> importance = GMARAttribution(load_model()).head_importance(scene.pixel_values, scene.labels[0])
        >>> figure, (panel,) = visualize_head_importance(importance[0], use_pyplot=False)
        >>> panel.get_xlabel(), panel.get_ylabel()
        ('head', 'layer (0, the first, at the top)')
    """
    heat = _up_to_the_largest(scaled(_layers_by_heads(importance, "importance"), "importance", outlier_perc=0))
    spreads = None if spread is None else scaled(_layers_by_heads(spread, "spread"), "spread").values
    if spreads is not None and spreads.shape != heat.values.shape:
        raise ValueError(f"spread must have the shape of importance, {heat.values.shape}. Got {spreads.shape} instead.")
    figure, axes = plt_fig_axis or _one_panel(heat.values.shape, spreads is not None, title, use_pyplot)
    (panel,) = given_axes(axes, 1)
    image = panel.imshow(heat.values, cmap=cmap or heat.cmap, vmin=heat.low, vmax=heat.high, aspect="auto")
    _draw_cells(figure, panel, heat, spreads)
    panel.set(xlabel="head", ylabel="layer (0, the first, at the top)")
    panel.set_xticks(range(heat.values.shape[1]))
    panel.set_yticks(range(heat.values.shape[0]))
    panel.tick_params(length=0)
    bar = figure.colorbar(image, ax=panel, label=label)
    bar.set_ticks(list(heat.ticks), labels=tick_labels(heat.ticks))
    draw_title(figure, title)
    show(figure, use_pyplot)
    return figure, [panel]


def visualize_head_attention(
    attention: Map,
    image: Pixels,
    importance: Map | None = None,
    *,
    patch: tuple[int, int] | None = None,
    title: str | None = None,
    label: str = "attention, share of all tokens",
    cmap: str | None = None,
    alpha_overlay: float = ALPHA,
    interpolation: str = "nearest",
    plt_fig_axis: tuple[Figure, Any] | None = None,
    use_pyplot: bool = True,
) -> tuple[Figure, list[Axes]]:
    """
    Draws where each head of a layer looks from one token, over the photo: the head that matters most first.

    Every map has a colour scale of its own, so colours compare places of one head and not one head with another.

    Args:
        attention (Tensor or numpy.ndarray): (heads, rows, columns), one token's attention to the patches, of one
            example; see below.
        image (Tensor, numpy.ndarray or PIL.Image.Image): What the model saw of the photo, as
            :func:`~captum_gmar.visualize_attribution` takes it.
        importance (Tensor or numpy.ndarray, optional): (heads,), the weights that stand in the titles and that the
            heads are sorted by. Without, they stay in their order.
            Default: None
        patch (tuple[int, int], optional): Row and column of the patch that looks, which is framed in every panel.
            Default: None, for a token that is none
        title (str, optional): Above the whole, wrapped where it is long.
            Default: None
        label (str, optional): What the colour bars measure, and its unit.
            Default: "attention, share of all tokens"
        cmap (str, optional): A Matplotlib colour map for all maps.
            Default: None, as in :func:`~captum_gmar.visualize_attribution`
        alpha_overlay (float, optional): Opacity of the maps over the photo.
            Default: 0.5
        interpolation (str, optional): "nearest" or "bilinear", as in :func:`~captum_gmar.visualize_attribution`.
            Default: "nearest"
        plt_fig_axis (tuple, optional): A figure and 1 + heads of its axes to draw in.
            Default: None
        use_pyplot (bool, optional): As in Captum: whether to make the figure with pyplot and show it. Without, the
            figure is only returned.
            Default: True

    Returns:
        2-element tuple of **figure**, **axes**:
        - **figure** (*matplotlib.figure.Figure*)
        - **axes** (*list of matplotlib.axes.Axes*): the photo and the heads, as they are sorted.

    Raises:
        TypeError: if an argument is none of these types.
        ValueError: if shapes or values are none of these, or there are not as many weights as heads.

    Example::

        >>> from captum_gmar import GMARAttribution, record_attention
        >>> from captum_gmar.demo import load_model, load_scene
        >>> from captum_gmar.visualization import visualize_head_attention
        >>> model, scene = load_model(), load_scene(3)
        >>> record = record_attention(model, scene.pixel_values, scene.labels[0])
        >>> layer, token = 4, 0  # the CLS token; patch (row, column) of this model is token 1 + 14 * row + column
        >>> attention = record.attention[layer][0, :, token, 1:].unflatten(-1, (14, 14))
        >>> importance = GMARAttribution(model).head_importance(scene.pixel_values, scene.labels[0])[0, layer]
        >>> figure, axes = visualize_head_attention(attention, scene.image, importance, use_pyplot=False)
        >>> len(axes)
        5
    """
    photo, maps = photo_of(image), patches_of(attention, "attention", 3)
    if patch is not None:
        check_patch(patch, maps.shape[1:])
    order, names = _by_importance(importance, len(maps))
    heats = [heat_of(maps[head], photo, f"attention[{head}]", interpolation) for head in order]
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
    if patch is not None:
        for panel in panels:
            outline(panel, photo, patch, maps.shape[1:])
    show(figure, use_pyplot)
    return figure, panels


def _layers_by_heads(values: Map, name: str) -> Array:
    array = array_of(values, name)
    if array.ndim != 2 or not array.size:
        raise ValueError(
            f"{name} must have the shape (layers, heads). Got shape {array.shape} instead. Pass one example, "
            f"{name}[0], or the mean over examples, {name}.mean(0)."
        )
    return array


def _up_to_the_largest(heat: Heat) -> Heat:
    """Whatever the values: in a table they are read, and no colour has to say that they hardly differ."""
    return heat if heat.is_signed or not heat.values.any() else heat._replace(high=float(heat.values.max()))


def _one_panel(shape: tuple[int, int], has_spread: bool, title: str | None, use_pyplot: bool) -> tuple[Figure, Axes]:
    layers, heads = shape
    width = max(min(heads * CELL_WIDTH, CELLS_WIDEST), 3) + AXES_INCHES + SCALE_INCHES
    height = max(layers * (SPREAD_HEIGHT if has_spread else CELL_HEIGHT), 2.4) + AXES_INCHES
    figure = make_figure(width, height + text_height([title or ""], width - MARGIN_INCHES, title_size()), use_pyplot)
    return figure, figure.add_subplot()


def _draw_cells(figure: Figure, panel: Axes, heat: Heat, spreads: Array | None) -> None:
    """The values, in black on bright cells and white on dark ones."""
    image, decimals = panel.images[-1], _decimals(_finest(heat, spreads))
    inches = figure.get_figwidth() * panel.get_position().width / heat.values.shape[1]
    size = VALUE_SIZE * min(1, inches / CELL_WIDTH)
    for layer, head in np.ndindex(*heat.values.shape):
        value = heat.values[layer, head]
        red, green, blue, _ = image.to_rgba(value)
        text = number_text(float(value), f"z.{decimals}")
        if spreads is not None:
            text += f"\n±{spreads[layer, head]:.{decimals}}"
        colour = "black" if 0.299 * red + 0.587 * green + 0.114 * blue > 0.5 else "white"
        panel.text(head, layer, text, ha="center", va="center", fontsize=size, color=colour)


def _finest(heat: Heat, spreads: Array | None) -> float:
    """What two digits are to tell apart: the values, and of the spreads the middle one from zero."""
    extent = float(np.ptp(heat.values)) or heat.high
    spread = 0 if spreads is None else 10 * float(np.nanmedian(spreads))
    return min(extent, spread) if spread > 0 else extent


def _decimals(extent: float) -> str:
    """How numbers are written that differ by this much, with two digits of the difference."""
    decimals = 1 - floor(log10(extent))
    return f"{max(decimals, 0)}f" if -3 <= decimals <= 4 else "1e"


def _by_importance(importance: Map | None, heads: int) -> tuple[list[int], list[str]]:
    """The heads, most important first, and their titles."""
    if importance is None:
        return list(range(heads)), [f"head {head}" for head in range(heads)]
    weights = array_of(importance, "importance")
    if weights.shape != (heads,):
        raise ValueError(
            f"importance must be one number for each of the {heads} heads. Got shape {weights.shape} instead. Pass "
            "those of one example and layer, importance[example, layer]."
        )
    if not np.isfinite(weights).all():
        raise ValueError("importance must be finite. Got NaN or infinity instead.")
    order = [int(head) for head in np.argsort(-weights, kind="stable")]
    return order, [f"head {head}\nweight {number_text(weights[head])}" for head in order]
