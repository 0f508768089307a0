"""One photo, its heat map, and both over each other."""

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from captum_gmar.visualization.heat import Array, Heat, Map, Pixels, heat_of, photo_of
from captum_gmar.visualization.panels import (
    draw_colour_bar,
    draw_map,
    draw_photo,
    draw_title,
    given_axes,
    make_figure,
    panel_height,
    show,
)

PANELS = ("photo", "relevance", "overlay")
PANEL_INCHES = 3.3


def visualize_attribution(
    attribution: Map,
    image: Pixels,
    *,
    title: str | None = None,
    label: str = "attribution",
    cmap: str | None = None,
    alpha_overlay: float = 0.5,
    interpolation: str = "nearest",
    plt_fig_axis: tuple[Figure, Any] | None = None,
    use_pyplot: bool = True,
) -> tuple[Figure, list[Axes]]:
    """
    Draws one photo, the heat map of its attribution, and the heat map over the photo in grey.

    The colours run from the smallest to the largest value of this map, so they compare places of one picture and not
    one picture with another; the colour bar gives the values. A map with negative values has its colours around zero,
    as far down as up. A map without differences is drawn in one colour. Nothing is smoothed unless asked
    for: one patch, one colour.

    Args:
        attribution (Tensor or numpy.ndarray): Of one example: (channels, height, width), (height, width, channels) or
            (height, width) as the image, channels are summed; or (rows, columns), the relevance of the patches of an
            image that they divide evenly.
        image (Tensor, numpy.ndarray or PIL.Image.Image): What the model saw of the photo, resized and cropped, but
            not normalised: integers from 0 to 255 or floats from 0 to 1, of shape (channels, height, width),
            (height, width, channels) or (height, width). A Hugging Face image processor gives it with
            ``processor(photo, do_normalize=False, do_rescale=False)["pixel_values"][0]``.
        title (str, optional): Above the whole, wrapped where it is long.
            Default: None
        label (str, optional): What the colour bar measures, and its unit.
            Default: "attribution"
        cmap (str, optional): A Matplotlib colour map. By default "viridis", or "RdBu_r" if there are negative values:
            blue below zero, red above. Colour-blind readers can tell both.
            Default: None
        alpha_overlay (float, optional): Opacity of the heat map over the photo.
            Default: 0.5
        interpolation (str, optional): Of the relevance of patches (rows, columns): "nearest", one patch, one colour, or
            "bilinear", smooth between the middles of the patches. The colour bar keeps the values of the patches. A map
            that has a value for each pixel stays as it is.
            Default: "nearest"
        plt_fig_axis (tuple, optional): A figure and three of its axes to draw in.
            Default: None
        use_pyplot (bool, optional): As in Captum: whether to make the figure with pyplot and show it. Without, the
            figure is only returned.
            Default: True

    Returns:
        2-element tuple of **figure**, **axes**:
        - **figure** (*matplotlib.figure.Figure*)
        - **axes** (*list of matplotlib.axes.Axes*): photo, heat map and overlay.

    Raises:
        TypeError: if the image is none of these types.
        ValueError: if shapes or values are none of these, or the attribution holds NaN or infinity.

    Example::

        >>> import torch
        >>> from captum_gmar import visualize_attribution
        >>> figure, axes = visualize_attribution(torch.rand(14, 14), torch.rand(3, 224, 224), use_pyplot=False)
        >>> [panel.get_title() for panel in axes]
        ['photo', 'relevance', 'overlay']
    """
    photo = photo_of(image)
    heat = heat_of(attribution, photo, interpolation=interpolation)
    drawn = draw_single(photo, heat, title, label, cmap, alpha_overlay, plt_fig_axis, use_pyplot)
    show(use_pyplot)
    return drawn


def draw_single(
    photo: Array,
    heat: Heat,
    title: str | None,
    label: str,
    cmap: str | None,
    alpha_overlay: float,
    plt_fig_axis: tuple[Figure, Any] | None,
    use_pyplot: bool,
) -> tuple[Figure, list[Axes]]:
    """Photo, heat map and overlay, not yet shown."""
    figure, axes = plt_fig_axis or _panels(photo, use_pyplot)
    panels = given_axes(axes, len(PANELS))
    draw_photo(panels[0], photo)
    for panel, method in zip(panels[1:], ("heat_map", "blended_heat_map"), strict=True):
        draw_map(panel, heat, photo, method, cmap, alpha_overlay)
    for panel, name in zip(panels, PANELS, strict=True):
        panel.set_title(name)
    # Beside the panel and of its height, so that the panels stay of one size in any figure.
    draw_colour_bar(figure, panels[1], (1.03, 0, 0.05, 1), label=label)
    draw_title(figure, title)
    return figure, panels


def _panels(photo: Array, use_pyplot: bool) -> tuple[Figure, Any]:
    height = panel_height(PANEL_INCHES, photo)
    figure = make_figure(len(PANELS) * PANEL_INCHES + 1, height + 0.8, use_pyplot)
    return figure, figure.subplots(1, len(PANELS))
