"""Plots of attention heads: their importance, and their attention over a photo."""

from math import floor, log10
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from captum_gmar.visualization._heatmap import (
    PAPER,
    Array,
    Crop,
    Heat,
    Map,
    Pixels,
    array_of,
    heat_of,
    patches_of,
    scale,
    tint,
)
from captum_gmar.visualization._panels import (
    BAR_INCHES,
    PAD_INCHES,
    STRIP,
    Layout,
    PanelRow,
    draw_bar,
    draw_strip,
    draw_title,
    given_axes,
    make_grid,
    show,
)
from captum_gmar.visualization._style import number_text
from captum_gmar.visualization.tokens import check_patch, patch_box

CELL_WIDTH, CELL_HEIGHT, SPREAD_HEIGHT = 0.62, 0.3, 0.42  # inches
CELLS_WIDEST = 8.2  # inches of cells, which are narrower where there are more heads
CELLS_NARROWEST, CELLS_LOWEST = 1.9, 2.4  # inches, for names and values
NUMBERS_INCHES = 0.5  # of numbers and names beside and below the cells
VALUE_SIZE = 8.5  # points, in cells of CELL_WIDTH
BRIGHT = 128  # level of cells that have black values


def visualize_head_importance(
    importance: Map,
    *,
    spread: Map | None = None,
    title: str | None = None,
    label: str = "head importance, share of its layer",
    plt_fig_axis: tuple[Figure, Any] | None = None,
    use_pyplot: bool = True,
) -> tuple[Figure, list[Axes]]:
    """Draw the importance of heads, with a row for each layer, a column for each head, and the values in the cells.

    Layer 0, next to the image, is at the top; the last layer, next to the classifier, at the bottom. Colours run from
    zero to the largest value, and equally far below zero if there are negative values.

    Args:
        importance (Tensor or numpy.ndarray): (layers, heads), first layer first, such as
            ``GMARAttribution.head_importance`` of one example, or a mean over many.
        spread (Tensor or numpy.ndarray, optional): Numbers of the same shape, shown after ± below each value, such as
            the standard deviation over examples.
        label (str, optional): Quantity and unit of the colour bar. Default: "head importance, share of its layer"
        plt_fig_axis (tuple, optional): A figure and one of its axes to draw in.

    title, use_pyplot are those of :func:`~captum_gmar.visualize_attribution`.

    Returns:
        tuple: **figure**, and **axes** (*list of matplotlib.axes.Axes*): one.

    Raises:
        TypeError: if importance or spread is neither tensor nor array.
        ValueError: if they do not have one shape (layers, heads), or contain NaN or infinity.

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
    heat = scale(_layers_by_heads(importance, "importance"), "importance", outlier_perc=0)
    heat = heat._replace(zero=0.0, end=float(np.abs(heat.values).max()) or 1.0)  # as a table, which need not look flat
    spreads = None if spread is None else _layers_by_heads(spread, "spread")
    (layers, heads), values = heat.values.shape, heat.values
    if spreads is not None and spreads.shape != values.shape:
        raise ValueError(f"spread must have the shape of importance, {values.shape}, but got {spreads.shape}.")
    width = min(CELL_WIDTH, CELLS_WIDEST / heads)
    if plt_fig_axis:
        figure, (panel,) = plt_fig_axis[0], given_axes(plt_fig_axis[1], 1)
        draw_title(figure, title)
    else:
        layout = Layout(
            panel=max(heads * width, CELLS_NARROWEST), gap=0, columns=1, name_size=VALUE_SIZE, text_size=VALUE_SIZE
        )
        height = max(layers * (CELL_HEIGHT if spreads is None else SPREAD_HEIGHT), CELLS_LOWEST)
        row = PanelRow(PAD_INCHES, height, NUMBERS_INCHES + BAR_INCHES + 3 * PAD_INCHES, 1)
        figure, (panel,) = make_grid([row], layout, title, use_pyplot, left=NUMBERS_INCHES)
    cells = np.asarray(tint(np.full(values.shape, PAPER), heat.strength))
    panel.imshow(cells, origin="upper", aspect="auto", interpolation="nearest")
    _write_values(panel, heat, spreads, cells, VALUE_SIZE * width / CELL_WIDTH)
    panel.set(xlabel="head", ylabel="layer (0, the first, at the top)", xticks=range(heads), yticks=range(layers))
    panel.tick_params(length=0)
    draw_bar(panel, heat, VALUE_SIZE, gap=NUMBERS_INCHES, text=label)
    show(figure, use_pyplot)
    return figure, [panel]


def visualize_head_attention(
    attention: Map,
    image: Pixels,
    importance: Map | None = None,
    *,
    patch: tuple[int, int] | None = None,
    crop: Crop | None = None,
    title: str | None = None,
    label: str = "attention, share of all tokens",
    smooth: bool = False,
    plt_fig_axis: tuple[Figure, Any] | None = None,
    use_pyplot: bool = True,
) -> tuple[Figure, list[Axes]]:
    """Draw the attention of each head of a layer from one token over the photo, the most important head first.

    Each map has its own colour scale, so colours compare places of one head, not two heads.

    Args:
        attention (Tensor or numpy.ndarray): (heads, rows, columns), one token's attention to the patches in one
            example; see below.
        importance (Tensor or numpy.ndarray, optional): (heads,), weights for titles and the order of heads. Without
            them, heads keep their order.
        patch (tuple[int, int], optional): Row and column of the token's patch, which is framed in every panel. Default:
            None, for a token without a patch
        label (str, optional): Quantity and unit of the colour bars. Default: "attention, share of all tokens".
        plt_fig_axis (tuple, optional): A figure and 1 + heads of its axes to draw in.

    image, crop, title, use_pyplot are those of :func:`~captum_gmar.visualize_attribution`, smooth that of
    :func:`~captum_gmar.visualize_comparison`.

    Returns:
        tuple: **figure**, and **axes** (*list of matplotlib.axes.Axes*): the photo and the sorted heads.

    Raises:
        TypeError: if an argument has none of these types.
        ValueError: if shapes or values are not valid, or there are not as many weights as heads.

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
    maps = patches_of(attention, "attention", 3)
    if patch is not None:
        check_patch(patch, maps.shape[1:])
    order, names = _sort_heads(importance, len(maps))
    photo, crop = STRIP.fit(image, crop=crop)
    box = None if patch is None else patch_box(patch, maps.shape[1:], crop or (0, 0, *photo.size))
    heats = [heat_of(maps[head], photo, f"attention[{head}]") for head in order]
    options: dict[str, Any] = {"title": title, "plt_fig_axis": plt_fig_axis, "use_pyplot": use_pyplot}
    return draw_strip(photo, heats, names, crop=crop, smooth=smooth, box=box, label=label, **options)


def _layers_by_heads(values: Map, name: str) -> Array:
    array = array_of(values, name)
    if array.ndim != 2 or not array.size:
        raise ValueError(
            f"{name} must have the shape (layers, heads), but got shape {array.shape}. Pass one example, "
            f"{name}[0], or the mean over examples, {name}.mean(0)."
        )
    if not np.isfinite(array).all():
        raise ValueError(f"{name} must be finite, but got NaN or infinity.")
    return array


def _write_values(panel: Axes, heat: Heat, spreads: Array | None, cells: Array, size: float) -> None:
    """Write the values, in black on bright cells and white on dark ones."""
    decimals = _decimals(heat, spreads)
    for layer, head in np.ndindex(*heat.values.shape):
        text = number_text(float(heat.values[layer, head]), f"z.{decimals}")
        if spreads is not None:
            text += f"\n±{spreads[layer, head]:.{decimals}}"
        is_bright = cells[layer, head] @ (0.299, 0.587, 0.114) > BRIGHT
        options: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": size}
        panel.text(head, layer, text, color="black" if is_bright else "white", **options)


def _decimals(heat: Heat, spreads: Array | None) -> str:
    """Return a format whose two digits tell values apart, and the middle one of the spreads from zero."""
    extent = float(np.ptp(heat.values)) or heat.end
    spread = 0 if spreads is None else 10 * float(np.median(spreads))
    decimals = 1 - floor(log10(min(extent, spread) if spread > 0 else extent))
    return f"{max(decimals, 0)}f" if -3 <= decimals <= 4 else "1e"


def _sort_heads(importance: Map | None, heads: int) -> tuple[list[int], list[str]]:
    """Return the heads, most important first, and their titles."""
    if importance is None:
        return list(range(heads)), [f"head {head}" for head in range(heads)]
    weights = array_of(importance, "importance")
    if weights.shape != (heads,):
        raise ValueError(
            f"importance must be one number for each of the {heads} heads, but got shape {weights.shape}. Pass "
            "those of one example and layer, importance[example, layer]."
        )
    if not np.isfinite(weights).all():
        raise ValueError("importance must be finite, but got NaN or infinity.")
    order = [int(head) for head in np.argsort(-weights, kind="stable")]
    return order, [f"head {head}\nweight {number_text(weights[head])}" for head in order]
