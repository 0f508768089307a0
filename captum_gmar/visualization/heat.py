"""Photos and attributions as they are drawn: checked, of one size, and with the scale of their colours."""

from numbers import Real
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from captum_gmar.visualization.style import DIVERGING, SEQUENTIAL

Array = npt.NDArray[Any]
Map = Tensor | Array
Pixels = Tensor | Array | Image.Image

# Negative values below this part of the largest are rounding.
ROUNDING = 1e-4

# Percent of the values that may lie beyond the end of the colours, where these are far from the others.
OUTLIERS, FAR = 2, 1.5


class Heat(NamedTuple):
    """An attribution as it is drawn: the colours begin at zero, or have it in the middle."""

    values: Array  # (height, width) of the photo
    low: float  # the values at both ends of the colours
    high: float
    cmap: str  # the colour map that suits them
    label: str = ""  # what they are taken to measure, unless the user names it

    @property
    def is_signed(self) -> bool:
        """Whether there are values below zero, not by rounding."""
        return self.low < 0

    @property
    def beyond(self) -> tuple[bool, bool]:
        """Whether there are values below the lower end and above the upper."""
        return self.is_signed and self.values.min() < self.low, self.values.max() > self.high

    @property
    def ticks(self) -> tuple[float, ...]:
        """The values that are named beside the colours."""
        return (0,) if not self.values.any() else (self.low, (self.low + self.high) / 2, self.high)

    @property
    def strength(self) -> Array:
        """How far each value is from zero, in [0, 1] of the way to the end of the colours."""
        strength: Array = np.clip(np.abs(self.values) / self.high, 0, 1)
        return strength


INTERPOLATIONS = ("nearest", "bilinear")


def heat_of(
    attribution: Map,
    photo: Array,
    name: str = "attribution",
    interpolation: str = "nearest",
    outlier_perc: float = OUTLIERS,
) -> Heat:
    """The attribution over its photo.

    Raises:
        TypeError: if it is no tensor or array of numbers.
        ValueError: if it does not fit the photo or is not finite; ``name`` says which it is. If ``interpolation`` or
            ``outlier_perc`` are none.
    """
    if interpolation not in INTERPOLATIONS:
        raise ValueError(f"interpolation must be one of {list(INTERPOLATIONS)}. Got {interpolation!r} instead.")
    array = array_of(attribution, name)
    heat = scaled(_over_photo(array, photo, name), name, outlier_perc)
    if array.ndim != 2 or array.shape == photo.shape[:2]:
        return heat._replace(label="attribution per pixel")
    values = heat.values if interpolation == "nearest" else _smooth(array, photo)
    return heat._replace(values=values, label="relevance per patch")


def patches_of(relevance: Map, name: str, dimensions: int = 2) -> Array:
    """Relevance of patches: (rows, columns), or several such.

    Raises:
        TypeError: if it is no tensor or array of numbers.
        ValueError: if it has another number of dimensions, or nothing in it; ``name`` says which it is.
    """
    values = array_of(relevance, name)
    if values.ndim != dimensions or not values.size:
        several = ("several", "rows", "columns")[-dimensions:]
        raise ValueError(f"{name} must have the shape ({', '.join(several)}). Got shape {values.shape} instead.")
    return values


def scaled(values: Array, name: str, outlier_perc: float = OUTLIERS) -> Heat:
    """Values with the scale of their colours.

    It goes from zero, or as far down as up, to the largest value. That of a map whose values hardly differ has the
    colour in the middle, so that it looks as flat as it is. Where the few largest are far from the others, at most
    ``outlier_perc`` percent of all, the scale ends at the others.

    Raises:
        ValueError: if they are not finite, ``name`` says which they are, or ``outlier_perc`` is no percentage.
    """
    if not isinstance(outlier_perc, Real) or not 0 <= outlier_perc < 100:
        raise ValueError(f"outlier_perc must be at least 0 and less than 100. Got {outlier_perc!r} instead.")
    if not np.isfinite(values).all():
        raise ValueError(f"{name} must be finite. Got NaN or infinity instead.")
    sizes, lowest = np.abs(values), float(values.min())
    largest = others = float(sizes.max())
    if outlier_perc:
        others = float(np.percentile(sizes, 100 - outlier_perc, method="higher"))
    end = others if 0 < FAR * others < largest else largest
    end = max(end, 2 * abs(float(values.mean()))) or 1.0
    if lowest < -ROUNDING * largest:
        return Heat(values, -end, end, DIVERGING)
    return Heat(values, 0.0, end, SEQUENTIAL)


def photo_of(image: Pixels) -> Array:
    """(height, width, 3) in [0, 1].

    Raises:
        TypeError: if it is no tensor, array or image.
        ValueError: if shape or values are not those of one image.
    """
    pixels = array_of(image.convert("RGB") if isinstance(image, Image.Image) else image, "image")
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


def _over_photo(attribution: Array, photo: Array, name: str) -> Array:
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
        f"{name} must have the height and width of the image, {size[0]}x{size[1]}, or be (rows, columns) of "
        f"patches that divide it evenly. Got shape {shape} instead. Pass one example (attributions[0]) and the photo "
        "as the model saw it, resized and cropped."
    )


def _smooth(relevance: Array, photo: Array) -> Array:
    """(height, width) as the photo, bilinear between the middles of the patches."""
    height, width = photo.shape[:2]
    patches = torch.from_numpy(relevance.astype(np.float64))[None, None]
    smooth: Array = F.interpolate(patches, (height, width), mode="bilinear", align_corners=False)[0, 0].numpy()
    return smooth


def _unit(pixels: Array) -> Array:
    """Pixels in [0, 1]. As floats, because Captum takes dark integer images for floats and brightens them."""
    whole, low, high = 255 if pixels.dtype.kind in "iu" else 1, pixels.min(), pixels.max()
    if not (low >= -1e-3 * whole and high <= 1.001 * whole):
        raise ValueError(
            "image must hold integers from 0 to 255 or floats from 0 to 1. Got values from "
            f"{low:.4g} to {high:.4g} instead. If it is normalised, undo that: multiply by the image processor's "
            "image_std and add its image_mean."
        )
    unit: Array = np.clip(pixels.astype(np.float64) / whole, 0, 1)
    return unit


def array_of(values: object, name: str) -> Array:
    """An array of numbers, floats in double precision.

    Raises:
        TypeError: if it is no tensor, array or image; ``name`` says what it is.
    """
    if isinstance(values, Tensor):
        values = values.detach().cpu()
        values = (values.double() if values.is_floating_point() else values).numpy()
    elif isinstance(values, Image.Image):
        values = np.asarray(values)
    if not isinstance(values, np.ndarray) or values.dtype.kind not in "biuf":
        raise TypeError(f"{name} must be a tensor or array of numbers. Got {type(values).__name__} instead.")
    return values.astype(np.float64) if values.dtype.kind == "f" else values
