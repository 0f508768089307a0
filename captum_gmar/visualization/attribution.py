"""One photo, and the map of its attribution over it."""

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

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
    outline_box,
    outline_region,
    photo_of,
    spread,
)
from captum_gmar.visualization._panels import Layout, Tile, draw_tiles, map_text

LAYOUT = Layout(panel=3.1, gap=0.15, columns=3, name_size=11, text_size=9)


def visualize_attribution(
    attribution: Map,
    image: Pixels,
    *,
    crop: Crop | None = None,
    title: str | None = None,
    label: str | None = None,
    note: str | None = None,
    outlier_perc: float = OUTLIERS,
    box: Crop | None = None,
    region: Map | None = None,
    width: float | None = None,
    plt_fig_axis: tuple[Figure, Any] | None = None,
    use_pyplot: bool = True,
) -> tuple[Figure, list[Axes]]:
    """Draw a photo, its attribution over it, patch by patch, and the same smoothed.

    The photo below the map is grey. Orange is for the class and blue against it; half the relevance has half the
    opacity. The scale ends at the map's largest value, or at twice the mean if that is more, so colours compare places
    of one picture, not two pictures. A map whose values hardly differ looks flat. If no value is below a quarter of the
    largest, colours begin at the least value, and the text below the colour bar says so. If few values are far larger
    than all others, the scale ends before them, and the colour bar shows "≥" or "≤".

    Matplotlib's style sets the colours of background and text; ``pyplot.style.use("dark_background")`` suits a dark
    page.

    Args:
        attribution (Tensor or numpy.ndarray): Of one example: (rows, columns), the relevance of patches; or of pixels,
            (height, width), (channels, height, width) or (height, width, channels), whose channels are summed.
        image (PIL.Image.Image, Tensor or numpy.ndarray): The photo, or the model's input before normalisation: integers
            from 0 to 255 or floats from 0 to 1, of shape (channels, height, width), (height, width, channels) or
            (height, width).
        crop (tuple of float, optional): Left, top, right and bottom of the model's input, in pixels of the image, such
            as ``classifier.frame(photo).crop`` of :class:`captum_gmar.classifier.Classifier`. The map covers it, and a
            frame marks it unless it is the whole image. It may exceed the image if the image processor pads. Default:
            None, the whole image
        title (str, optional): Title of the figure; long titles are wrapped. Letters that Matplotlib's font lacks come
            from another installed font.
        label (str, optional): Quantity and unit of the colour bar. Default: None, "relevance per patch" or "attribution
            per pixel"
        note (str, optional): A line below the colour bar, such as a limitation of the map.
        outlier_perc (float, optional): Percentage of the values that may be beyond the end of the scale, if they exceed
            all others by more than half. Unlike Captum's argument, it counts values and does not sum them. 0 shows
            every value.
        box (tuple of float, optional): Left, top, right and bottom of a frame, in pixels of the image, such as a
            detector's object.
        region (Tensor or numpy.ndarray, optional): Boolean (rows, columns) of a region to frame, such as that of a
            segmenter's class. Rows and columns divide the model's input evenly.
        width (float, optional): Width of the figure in inches, such as a journal's column. Letters keep their size.
            Default: None, 3.1 inches for each panel.
        plt_fig_axis (tuple, optional): A figure and as many of its axes as are returned, to draw in. The colour bar is
            below the axes.
        use_pyplot (bool, optional): As in Captum, make the figure with pyplot and show it; otherwise only return it.
            Where pyplot has no windows, only the newest figure stays open, so a script can draw any number of them.

    Returns:
        tuple: **figure**, and **axes** (*list of matplotlib.axes.Axes*): photo, patches, smooth map; or photo and map.

    Raises:
        TypeError: if the image has none of these types.
        ValueError: if shapes or values are not valid, or the attribution contains NaN or infinity.

    Example::

        >>> import torch
        >>> from captum_gmar import visualize_attribution
        >>> figure, axes = visualize_attribution(torch.rand(14, 14), torch.rand(3, 300, 500), use_pyplot=False)
        >>> [panel.get_title() for panel in axes]
        ['photo', 'patches', 'smooth']
    """
    photo, crop, box = LAYOUT.fit(image, crop=crop, box=box)
    heat = heat_of(attribution, photo, outlier_perc=outlier_perc)
    places = None if region is None else spread(_boolean_cells(region), photo, crop) > 0.5
    drawing: dict[str, Any] = {"title": title, "width": width, "plt_fig_axis": plt_fig_axis, "use_pyplot": use_pyplot}
    return draw_single(photo, heat, map_text(label, heat, note), crop, box, places, **drawing)


def _boolean_cells(region: Map) -> Array:
    cells = array_of(region, "region")
    if cells.ndim != 2 or cells.dtype != bool:
        raise ValueError(f"region must be boolean (rows, columns), but got {cells.dtype} {cells.shape}.")
    return cells


def overlay_attribution(
    attribution: Map, image: Pixels, *, crop: Crop | None = None, smooth: bool = False, outlier_perc: float = OUTLIERS
) -> Image.Image:
    """Compose the map of an attribution over its photo, as large as the photo, in the colours of
    :func:`visualize_attribution`.

    Args:
        smooth (bool, optional): Interpolate between the patches.
        attribution, image, crop, outlier_perc: those of :func:`visualize_attribution`.

    Returns:
        PIL.Image.Image: RGB.

    Raises:
        TypeError, ValueError: as :func:`visualize_attribution`.

    Example::

        >>> import torch
        >>> from captum_gmar.visualization import overlay_attribution
        >>> overlay_attribution(torch.rand(14, 14), torch.rand(3, 300, 500)).size
        (500, 300)
    """
    photo = photo_of(image)
    return blend(photo, heat_of(attribution, photo, outlier_perc=outlier_perc), crop, smooth)


def draw_single(
    photo: Image.Image, heat: Heat, text: str, crop: Crop | None, box: Crop | None, region: Array | None, **drawing: Any
) -> tuple[Figure, list[Axes]]:
    """Draw the photo, the map over it and, of patches, the smooth map, each with a box and places (height, width)
    framed."""
    images = {"photo": photo, "map" if heat.is_of_pixels else "patches": blend(photo, heat, crop)}
    if not heat.is_of_pixels:
        images["smooth"] = blend(photo, heat, crop, smooth=True)
    if box is not None:
        images = {name: outline_box(image, box) for name, image in images.items()}
    if region is not None:
        images = {name: outline_region(image, region) for name, image in images.items()}
    tiles = [Tile(image, name) for name, image in images.items()]
    tiles[1] = tiles[1]._replace(text=text, heat=heat)
    return draw_tiles([tiles], LAYOUT, **drawing)
