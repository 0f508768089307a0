"""Attributions over their photo, drawn with ``captum.attr.visualization``.

Captum scales what it draws to [0, 1]; here its pictures get the real values back, so that colour bars and the cursor
show them.
"""

import textwrap
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from captum.attr import visualization
from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

Array = npt.NDArray[Any]
Pixels = Tensor | Array | Image.Image

PANELS = {"photo": "original_image", "relevance": "heat_map", "overlay": "blended_heat_map"}
PANEL_INCHES = 3.3
TITLE_LETTERS = 90  # a line of the title that fits above three panels

# Differences below this part of the values are rounding: stretched over all colours they would look like a finding.
FLAT = 1e-4

# Percent of the attribution that Captum may cut off. None, in truth, but of zero its rounding makes an IndexError.
OUTLIERS = 1e-6


def visualize_attribution(
    attribution: Tensor | Array,
    image: Pixels,
    *,
    title: str | None = None,
    label: str = "attribution",
    cmap: str = "viridis",
    alpha_overlay: float = 0.5,
    plt_fig_axis: tuple[Figure, Any] | None = None,
    use_pyplot: bool = True,
) -> tuple[Figure, list[Axes]]:
    """
    Draws one photo, the heat map of its attribution, and the heat map over the photo in grey.

    The colours run from the smallest to the largest value of this map, so they compare places of one picture and not
    one picture with another; the colour bar gives the values. A map without differences is drawn in one colour.
    Nothing is smoothed: one patch, one colour.

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
        cmap (str, optional): A Matplotlib colour map. The default is told apart by colour-blind readers and in grey.
            Default: "viridis"
        alpha_overlay (float, optional): Opacity of the heat map over the photo.
            Default: 0.5
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
    photo = _photo(image)
    heat = _heat(attribution, photo)
    figure, axes = plt_fig_axis or _panels(photo, use_pyplot)
    axes = _three(axes)
    for panel, (name, method) in zip(axes, PANELS.items(), strict=True):
        visualization.visualize_image_attr(
            heat.scaled,
            photo,
            method,
            sign="positive",
            plt_fig_axis=(figure, panel),
            outlier_perc=OUTLIERS,
            cmap=cmap,
            alpha_overlay=alpha_overlay,
            title=name,
            use_pyplot=False,
        )
    _set_values(axes, heat)
    # Beside the panel and of its height, so that the panels stay of one size in any figure.
    figure.colorbar(axes[1].images[-1], cax=axes[1].inset_axes((1.03, 0, 0.05, 1)), label=label)
    if title:
        figure.suptitle(textwrap.fill(title, TITLE_LETTERS), parse_math=False)
    if use_pyplot:
        pyplot.show()
    return figure, axes


class _Heat(NamedTuple):
    values: Array  # (height, width)
    scaled: Array  # (height, width) in [0, 1], as Captum wants it
    low: float
    high: float


def _heat(attribution: Tensor | Array, photo: Array) -> _Heat:
    values = _over_photo(_array(attribution, "attribution"), photo)
    if not np.isfinite(values).all():
        raise ValueError("attribution must be finite. Got NaN or infinity instead.")
    low, high = float(values.min()), float(values.max())
    largest = max(abs(low), abs(high))
    if high - low <= FLAT * largest:
        # Captum draws no map of zeros, so it gets ones. In the middle of the colours the map looks like neither end;
        # a little off the middle, because two colours meet there.
        margin = largest or 1
        return _Heat(values, np.ones_like(values), low - margin, high + 1.01 * margin)
    return _Heat(values, (values - low) / (high - low), low, high)


def _over_photo(attribution: Array, photo: Array) -> Array:
    """(height, width) as the photo."""
    size, shape = photo.shape[:2], attribution.shape
    if attribution.ndim == 3:
        attribution = attribution.sum(0 if shape[1:] == size else -1)
    if attribution.shape == size:
        return attribution
    if (
        len(shape) == 2
        and all(shape)
        and all(pixels % patches == 0 for pixels, patches in zip(size, shape, strict=True))
    ):
        return attribution.repeat(size[0] // shape[0], 0).repeat(size[1] // shape[1], 1)
    raise ValueError(
        f"attribution must have the height and width of the image, {size[0]}x{size[1]}, or be (rows, columns) of "
        f"patches that divide it evenly. Got shape {shape} instead. Pass one example (attributions[0]) and the photo "
        "as the model saw it, resized and cropped."
    )


def _photo(image: Pixels) -> Array:
    """(height, width, 3) in [0, 1]."""
    pixels = _array(image.convert("RGB") if isinstance(image, Image.Image) else image, "image")
    if pixels.ndim == 3 and pixels.shape[0] in (1, 3) and (pixels.shape[2] not in (1, 3) or isinstance(image, Tensor)):
        pixels = np.moveaxis(pixels, 0, -1)
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    if pixels.ndim != 3 or pixels.shape[2] not in (1, 3) or not pixels.size:
        raise ValueError(
            "image must be one image: (channels, height, width), (height, width, channels) or (height, width) with 1 "
            f"or 3 channels. Got shape {pixels.shape} instead."
        )
    return np.broadcast_to(_unit(pixels), (*pixels.shape[:2], 3))


def _unit(pixels: Array) -> Array:
    """Pixels in [0, 1]. As floats, because Captum takes dark integer images for floats and brightens them."""
    whole, low, high = 1 if pixels.dtype.kind == "f" else 255, pixels.min(), pixels.max()
    if not (low >= -1e-3 * whole and high <= 1.001 * whole):
        raise ValueError(
            "image must hold integers from 0 to 255 or floats from 0 to 1. Got values from "
            f"{low:.4g} to {high:.4g} instead. If it is normalised, undo that: multiply by the image processor's "
            "image_std and add its image_mean."
        )
    unit: Array = np.clip(pixels.astype(np.float64) / whole, 0, 1)
    return unit


def _array(values: object, name: str) -> Array:
    if isinstance(values, Tensor):
        values = values.detach().cpu()
        values = (values.double() if values.is_floating_point() else values).numpy()
    elif isinstance(values, Image.Image):
        values = np.asarray(values)
    if not isinstance(values, np.ndarray) or values.dtype.kind not in "biuf":
        raise TypeError(f"{name} must be a tensor or array of numbers. Got {type(values).__name__} instead.")
    return values.astype(np.float64) if values.dtype.kind == "f" else values


def _panels(photo: Array, use_pyplot: bool) -> tuple[Figure, Any]:
    height = PANEL_INCHES * min(max(photo.shape[0] / photo.shape[1], 0.4), 2)
    make = pyplot.figure if use_pyplot else Figure
    figure = make(figsize=(3 * PANEL_INCHES + 1, height + 0.8), layout="compressed")
    return figure, figure.subplots(1, len(PANELS))


def _three(axes: Any) -> list[Axes]:
    panels = list(np.ravel(np.asarray(axes, dtype=object)))
    if len(panels) != len(PANELS) or not all(isinstance(panel, Axes) for panel in panels):
        raise ValueError(
            f"plt_fig_axis must be a figure and {len(PANELS)} of its axes. Got {len(panels)} axes instead."
        )
    return panels


def _set_values(axes: list[Axes], heat: _Heat) -> None:
    for panel in axes[1:]:
        panel.images[-1].set(data=heat.values, clim=(heat.low, heat.high))
    axes[2].images[0].set_clim(0, 255)  # the grey photo below, which Matplotlib would stretch to full contrast
