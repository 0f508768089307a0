"""One photo, its heat map, and both over each other."""

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from captum_gmar.visualization.heat import OUTLIERS, Array, Heat, Map, Pixels, array_of, heat_of, photo_of
from captum_gmar.visualization.panels import (
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
    outline_box,
    outline_region,
    show,
    wrapped,
)

PANELS = ("photo", "relevance", "overlay")
LAYOUT = Layout(panel=3.1, gap=0.15, columns=3, name_size=11, bar_size=9)
ALPHA = 0.8  # of an overlay, where the map is strongest


def visualize_attribution(
    attribution: Map,
    image: Pixels,
    *,
    title: str | None = None,
    label: str | None = None,
    note: str | None = None,
    cmap: str | None = None,
    alpha_overlay: float = ALPHA,
    interpolation: str = "nearest",
    outlier_perc: float = OUTLIERS,
    box: tuple[float, float, float, float] | None = None,
    region: Map | None = None,
    plt_fig_axis: tuple[Figure, Any] | None = None,
    use_pyplot: bool = True,
) -> tuple[Figure, list[Axes]]:
    """
    Draws one photo, the heat map of its attribution, and the heat map over the photo.

    The colours begin at zero, so that half the relevance has half the colour and a map whose values hardly differ looks
    flat. They end at the largest value of this map, or at twice the mean where that is more, so they compare places of
    one picture and not one picture with another. A map with negative values has its colours around zero, as far down as
    up. Where few values are far larger than all others, the colours end before them, and the colour bar says so by "≥"
    or "≤". Over the photo the map is the more opaque the farther its values are from zero. Nothing is smoothed unless
    asked for: one patch, one colour.

    Ground and letters are coloured by Matplotlib's style; ``pyplot.style.use("dark_background")`` suits a dark page.

    Args:
        attribution (Tensor or numpy.ndarray): Of one example: (channels, height, width), (height, width, channels) or
            (height, width) as the image, channels are summed; or (rows, columns), the relevance of the patches of an
            image that they divide evenly.
        image (Tensor, numpy.ndarray or PIL.Image.Image): What the model saw of the photo, resized and cropped, but
            not normalised: integers from 0 to 255 or floats from 0 to 1, of shape (channels, height, width),
            (height, width, channels) or (height, width). A Hugging Face image processor gives it with
            ``processor(photo, do_normalize=False, do_rescale=False)["pixel_values"][0]``.
        title (str, optional): Above the whole, wrapped where it is long. Letters that Matplotlib's font lacks are
            taken from any installed font that has them.
            Default: None
        label (str, optional): What the colour bar measures, and its unit.
            Default: None, "relevance per patch" or "attribution per pixel"
        note (str, optional): A line below the colour bar, of what the map does not say, for example.
            Default: None
        cmap (str, optional): A Matplotlib colour map. By default "viridis", or "RdBu_r" if there are negative values:
            blue below zero, against the class, and red above, for it. Colour-blind readers can tell both.
            Default: None
        alpha_overlay (float, optional): Opacity of the heat map over the photo where its colours end; where it is
            zero, the photo is as it was.
            Default: 0.8
        interpolation (str, optional): Of the relevance of patches (rows, columns): "nearest", one patch, one colour, or
            "bilinear", smooth between the middles of the patches. The colour bar keeps the values of the patches. A map
            that has a value for each pixel stays as it is.
            Default: "nearest"
        outlier_perc (float, optional): How many percent of the values may lie beyond the end of the colours, where that
            is more than half as large again as all others. Other than Captum's of this name, it counts values and does
            not sum them. 0 shows every value.
            Default: 2
        box (tuple of float, optional): Left, top, right and bottom, in pixels of the image, of what is framed in the
            photo and the overlay: the object that a detector saw, for example.
            Default: None
        region (Tensor or numpy.ndarray, optional): Boolean (rows, columns) of what is framed likewise: where a
            segmenter's class was explained, for example. The rows and columns cut the image evenly.
            Default: None
        plt_fig_axis (tuple, optional): A figure and three of its axes to draw in. The colour bar hangs below the axes.
            Default: None
        use_pyplot (bool, optional): As in Captum: whether to make the figure with pyplot and show it. Without, the
            figure is only returned. Where pyplot has no windows, it keeps the newest figure only, so that a script can
            draw any number of them.
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
    heat = heat_of(attribution, photo, interpolation=interpolation, outlier_perc=outlier_perc)
    text = map_text(label, heat, cmap, note)
    figure, panels = draw_single(photo, heat, title, text, cmap, alpha_overlay, plt_fig_axis, use_pyplot)
    cells = None if region is None else _boolean_cells(region)
    for panel in panels[::2]:
        if box is not None:
            outline_box(panel, box)
        if cells is not None:
            outline_region(panel, cells, photo.shape[:2])
    show(figure, use_pyplot)
    return figure, panels


def _boolean_cells(region: Map) -> Array:
    """Boolean (rows, columns)."""
    cells = array_of(region, "region")
    if cells.ndim != 2 or cells.dtype != bool:
        raise ValueError(f"region must be boolean (rows, columns). Got {cells.dtype} {cells.shape} instead.")
    return cells


def draw_single(
    photo: Array,
    heat: Heat,
    title: str | None,
    text: str,
    cmap: str | None,
    alpha_overlay: float,
    plt_fig_axis: tuple[Figure, Any] | None,
    use_pyplot: bool,
) -> tuple[Figure, list[Axes]]:
    """Photo, heat map and overlay, not yet shown; the text stands below the map."""
    text = wrapped(text, LAYOUT.text, LAYOUT.bar_size)
    figure, axes = plt_fig_axis or make_panels([photo], PANELS, bar_height([text], LAYOUT), LAYOUT, title, use_pyplot)
    panels = given_axes(axes, len(PANELS))
    draw_photo(panels[0], photo)
    draw_map(panels[1], heat, cmap)
    draw_overlay(panels[2], heat, photo, cmap, alpha_overlay)
    for panel, name in zip(panels, PANELS, strict=True):
        panel.set_title(name, fontsize=LAYOUT.name_size)
    draw_values(figure, panels[1], heat, text, LAYOUT.bar_size)
    if plt_fig_axis:
        draw_title(figure, title)
    return figure, panels
