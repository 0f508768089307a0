"""Attributions over photos: checked, scaled, and composed to pixels in one look.

The photo is grey. One hue is for and one against, and their opacity is how far a value is from zero.
"""

from collections.abc import Sequence
from math import inf
from numbers import Real
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter
from torch import Tensor

from captum_gmar.files.images import to_rgb
from captum_gmar.visualization._style import AGAINST, FOR, number_text

Array = npt.NDArray[Any]
Map = Tensor | Array
Pixels = Tensor | Array | Image.Image
Crop = tuple[float, float, float, float]  # left, top, right and bottom, in pixels of the photo

ROUNDING = 1e-4  # negative values below this part of the largest are rounding
OUTLIERS, FAR = 2, 1.5  # percent of the values that may be beyond the scale, where these are this far from the others
FEWEST_PIXELS = 128  # a side of a map that is taken to be of pixels, whatever the photo's size
SMALL = 1 / 4  # of the largest value: a map with nothing below is shown above its least value

OPACITY = 0.85  # of a hue at the end of the scale
PAPER, FADE, FADE_UNSEEN = (
    235,
    0.35,
    0.75,
)  # level that grey fades to, and how far, where the model sees it and elsewhere
CROP_LINE, LINE = 1 / 350, 1 / 200  # of the longer side of the photo: each of the two lines of a frame


class Heat(NamedTuple):
    """A map with its scale: the value that is drawn as nothing, and the one at which a hue is strongest."""

    values: Array  # (rows, columns)
    zero: float
    end: float
    is_signed: bool = False
    is_of_pixels: bool = False

    @property
    def label(self) -> str:
        """Name of what the values measure, unless the user gives one."""
        return "attribution per pixel" if self.is_of_pixels else "relevance per patch"

    @property
    def low(self) -> float:
        """The value at the left end of the colour bar."""
        return -self.end if self.is_signed else self.zero

    @property
    def overflows(self) -> tuple[bool, bool]:
        """True at each end that has values beyond it, lower and upper."""
        return self.is_signed and self.values.min() < self.low, self.values.max() > self.end

    @property
    def ticks(self) -> tuple[float, ...]:
        """The values that are named below the colour bar."""
        return (self.low, (self.low + self.end) / 2, self.end) if self.values.any() else (0,)

    @property
    def strength(self) -> Array:
        """Distance of each value from zero: 1 at the end of the scale, and −1 as far below zero."""
        strength: Array = np.clip((self.values - self.zero) / (self.end - self.zero), -1, 1).astype(np.float32)
        return strength

    @property
    def zero_text(self) -> str:
        """The least value, where the map is shown above it."""
        return f"shown above its least, {number_text(self.zero)}" if self.zero else ""


def heat_of(attribution: Map, photo: Image.Image, name: str = "attribution", outlier_perc: float = OUTLIERS) -> Heat:
    """Return the map of an attribution over a photo, of patches or of pixels, whose channels are summed."""
    values = array_of(attribution, name)
    if values.ndim == 3:
        is_last = values.shape[2] in (1, 3) and (values.shape[0] not in (1, 3) or values.shape[:2] == photo.size[::-1])
        return scale(values.sum(-1 if is_last else 0), name, outlier_perc)._replace(is_of_pixels=True)
    if values.ndim != 2 or not values.size:
        raise ValueError(
            f"{name} must be one map: (rows, columns) of patches, or (height, width), (channels, height, width) or "
            f"(height, width, channels) of pixels, but got shape {values.shape}. Pass one example, attributions[0]."
        )
    is_of_pixels = values.shape == photo.size[::-1] or min(values.shape) >= FEWEST_PIXELS
    return scale(values, name, outlier_perc)._replace(is_of_pixels=is_of_pixels)


def patches_of(relevance: Map, name: str, dimensions: int = 2) -> Array:
    """Return relevance of patches, (rows, columns), or several such."""
    values = array_of(relevance, name)
    if values.ndim != dimensions or not values.size:
        shape = ("several", "rows", "columns")[-dimensions:]
        raise ValueError(f"{name} must have the shape ({', '.join(shape)}), but got shape {values.shape}.")
    return values


def scale(values: Array, name: str, outlier_perc: float = OUTLIERS) -> Heat:
    """Return values with the scale of their colours, from zero, or as far down as up, to the largest value.

    A map that is nowhere small is shown above its least value. The scale is never shorter than the mean, or twice the
    mean from zero, so that a map whose values hardly differ looks as flat as it is. Where at most ``outlier_perc``
    percent of the values are far from all others, the scale ends at the others.
    """
    if not isinstance(outlier_perc, Real) or not 0 <= outlier_perc < 100:
        raise ValueError(f"outlier_perc must be at least 0 and less than 100, but got {outlier_perc!r}.")
    if not np.isfinite(values).all():
        raise ValueError(f"{name} must be finite, but got NaN or infinity.")
    sizes, least, mean = np.abs(values), float(values.min()), abs(float(values.mean()))
    largest = others = float(sizes.max())
    if outlier_perc:
        others = float(np.percentile(sizes, 100 - outlier_perc, method="higher"))
    end = others if 0 < FAR * others < largest else largest
    if least > SMALL * end:
        return Heat(values, least, max(end, least + mean))
    return Heat(values, 0.0, max(end, 2 * mean) or 1.0, least < -ROUNDING * largest)


def scale_together(heats: Sequence[Heat], name: str, outlier_perc: float = OUTLIERS) -> list[Heat]:
    """Return maps in the one scale of all their values; raises as :func:`scale`."""
    shared = scale(np.concatenate([heat.values.ravel() for heat in heats]), name, outlier_perc)
    return [shared._replace(values=heat.values, is_of_pixels=heat.is_of_pixels) for heat in heats]


def blend(photo: Image.Image, heat: Heat, crop: Crop | None = None, smooth: bool = False) -> Image.Image:
    """Compose a map over its photo in grey, as large as the photo, of which the map covers ``crop``."""
    left, top, right, bottom = part = visible_part(photo, crop)
    grey = np.asarray(photo.convert("L"), np.float32)
    faded = np.full_like(grey, FADE_UNSEEN)
    faded[top:bottom, left:right] = FADE
    blended = tint(np.rint(grey + faded * (PAPER - grey)), spread(heat.strength, photo, crop, smooth))
    return blended if part == (0, 0, *photo.size) else outline_box(blended, part, CROP_LINE)


def tint(grey: Array, strength: Array) -> Image.Image:
    """Compose the two hues over levels of grey (height, width), as opaque as the strength from -1 to 1 is."""
    image = Image.fromarray(grey.astype(np.uint8)).convert("RGB")
    for hue, side in ((FOR, strength), (AGAINST, -strength)):
        opacity = np.rint(255 * OPACITY * np.clip(side, 0, 1)).astype(np.uint8)
        image.paste(hue, (0, 0), Image.fromarray(opacity))
    return image


def outline_box(image: Image.Image, box: Crop, thickness: float = LINE) -> Image.Image:
    """Return the image with a white line along the inner edge of a box and a black one along the outer edge."""
    left, top, right, bottom = (round(corner) for corner in box)
    draw, line = ImageDraw.Draw(image := image.copy()), _line(image, thickness)
    outer = left - line, top - line, right + line - 1, bottom + line - 1
    draw.rectangle(outer, outline="black", width=line)
    draw.rectangle((left, top, right - 1, bottom - 1), outline="white", width=line)
    return image


def outline_region(image: Image.Image, region: Array) -> Image.Image:
    """Return the image with the edges of boolean places (height, width) drawn as those of a box."""
    line = _line(image, LINE)
    padded = Image.fromarray(255 * np.pad(region, line).astype(np.uint8))  # so that a region ends where the photo ends
    near = np.asarray(padded.filter(ImageFilter.BoxBlur(line)))[line:-line, line:-line]
    pixels = np.array(image)
    pixels[~region & (near > 0)] = 0
    pixels[region & (near < 255)] = 255
    return Image.fromarray(pixels)


def _line(image: Image.Image, thickness: float) -> int:
    return max(1, round(max(image.size) * thickness))


def corners_of(box: Any, name: str) -> Crop:
    """Return the corners of a box, four numbers in order."""
    try:
        left, top, right, bottom = map(float, box)
    except (TypeError, ValueError):
        left, top, right, bottom = 1, 1, 0, 0
    if not (-inf < left <= right < inf and -inf < top <= bottom < inf):
        raise ValueError(f"{name} must be left, top, right and bottom, in pixels, but got {box!r}.")
    return left, top, right, bottom


def visible_part(photo: Image.Image, crop: Crop | None) -> tuple[int, int, int, int]:
    """Return the part of a crop that is in the photo, in whole pixels."""
    left, top, right, bottom = (0, 0, *photo.size) if crop is None else corners_of(crop, "crop")
    part = max(0, round(left)), max(0, round(top)), min(photo.width, round(right)), min(photo.height, round(bottom))
    if not (part[0] < part[2] and part[1] < part[3]):
        raise ValueError(
            f"crop must be left, top, right and bottom of a part of the photo, {photo.width}x{photo.height} pixels, "
            f"but got {crop}."
        )
    return part


def spread(values: Array, photo: Image.Image, crop: Crop | None = None, smooth: bool = False) -> Array:
    """Return the values of a map at the pixels of its photo (height, width), and zero beyond the crop."""
    left, top, right, bottom = part = visible_part(photo, crop)
    (rows, columns), (start, upper, end, lower) = values.shape, crop or part
    across, down = columns / (end - start), rows / (lower - upper)
    box = (left - start) * across, (top - upper) * down, (right - start) * across, (bottom - upper) * down
    visible = [min(max(corner, 0), most) for corner, most in zip(box, (columns, rows) * 2, strict=True)]
    is_smaller = right - left < columns or bottom - top < rows
    method = Image.Resampling.BOX if is_smaller else Image.Resampling.NEAREST
    resampling = Image.Resampling.BILINEAR if smooth else method  # bicubic invents values of the other sign
    pixels = np.zeros((photo.height, photo.width), np.float32)
    map_image = Image.fromarray(values.astype(np.float32))
    size = right - left, bottom - top
    pixels[top:bottom, left:right] = np.asarray(map_image.resize(size, resampling, tuple(visible)))
    return pixels


def photo_of(image: Pixels) -> Image.Image:
    """Return a photo as RGB."""
    if isinstance(image, Image.Image):
        return to_rgb(image)
    pixels = array_of(image, "image")
    if pixels.ndim == 3 and pixels.shape[0] in (1, 3) and (pixels.shape[2] not in (1, 3) or isinstance(image, Tensor)):
        pixels = np.moveaxis(pixels, 0, -1)
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    if pixels.ndim != 3 or pixels.shape[2] not in (1, 3) or not pixels.size:
        raise ValueError(
            "image must be one image: (channels, height, width), (height, width, channels) or (height, width) with 1 "
            f"or 3 channels, but got shape {pixels.shape}."
        )
    return Image.fromarray(np.broadcast_to(_levels(pixels), (*pixels.shape[:2], 3)))


def _levels(pixels: Array) -> Array:
    whole, low, high = 255 if pixels.dtype.kind in "iu" else 1, pixels.min(), pixels.max()
    if not (low >= -1e-3 * whole and high <= 1.001 * whole):
        raise ValueError(
            f"image must hold integers from 0 to 255 or floats from 0 to 1, but got values from {low:.4g} to "
            f"{high:.4g}. Undo a normalisation: multiply by the image processor's image_std and add its image_mean."
        )
    return np.rint(np.clip(255 / whole * pixels, 0, 255)).astype(np.uint8)


def array_of(values: object, name: str) -> Array:
    """Return an array of numbers, floats in double precision."""
    if isinstance(values, Tensor):
        values = values.detach().cpu()
        values = (values.double() if values.is_floating_point() else values).numpy()
    if not isinstance(values, np.ndarray) or values.dtype.kind not in "biuf":
        raise TypeError(f"{name} must be a tensor or array of numbers, but got {type(values).__name__}.")
    return values.astype(np.float64) if values.dtype.kind == "f" else values
