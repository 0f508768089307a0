"""Reading image files the way a person sees them, whatever they hold, as 8-bit RGB."""

from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from captum_gmar.files.names import check_file, readable_name

FRAMES = "frames"  # the number in a file, in the info of its image


def read_image(path: str | Path, *, keeps_mode: bool = False) -> Image.Image:
    """Read an image file as 8-bit RGB, turned as its EXIF orientation says.

    Transparent parts become white. 16-bit grey is scaled from its whole range, 0 to 65535. Integers beyond that and
    floats beyond 0 to 1 are scaled from their smallest to their largest value. Of several frames, the first is read.
    A mask keeps its mode: white under full transparency would be part of it.
    """
    path, name = Path(path), readable_name(path)
    try:
        check_file(path, "an image file")
        return _decode(path, keeps_mode)
    except OSError as error:
        if error.strerror:  # from the system, whose text says less than ours
            raise OSError(f"{name} cannot be read: {error.strerror}. Check the path.") from error
        raise


def _decode(path: Path, keeps_mode: bool) -> Image.Image:
    name = readable_name(path)
    try:
        with Image.open(path) as image:
            image.load()
            picture = ImageOps.exif_transpose(image)
            picture = picture if keeps_mode else to_rgb(picture)
            with suppress(Exception):  # of formats without frames, and of films that end too early
                picture.info[FRAMES] = image.n_frames  # type: ignore[attr-defined]
            return picture
    except UnidentifiedImageError as error:
        raise OSError(f"{name} cannot be read: not an image in any format that Pillow reads. Convert it.") from error
    except Image.DecompressionBombError as error:
        raise OSError(f"{name} cannot be read: too many pixels to decode safely, {error}. Scale it down.") from error
    except Exception as error:  # of a damaged file, Pillow's decoders raise nearly anything
        reason = (isinstance(error, OSError) and error.strerror) or error
        raise OSError(f"{name} cannot be read as an image: {reason}. Fetch it again.") from error


def list_images(folder: str | Path) -> list[Path]:
    """Return the image files of a folder, by their suffixes, as :func:`list_files`."""
    return list_files(folder, image_suffixes())


def image_suffixes() -> set[str]:
    """Return the suffixes of images that Pillow reads."""
    Image.init()
    return {suffix for suffix, name in Image.registered_extensions().items() if name in Image.OPEN}


def list_files(folder: str | Path, suffixes: Collection[str]) -> list[Path]:
    """Return the files of a folder, not of its subfolders, with one of these suffixes, but hidden ones, by name."""
    return sorted(
        path
        for path in Path(folder).iterdir()
        if path.suffix.lower() in suffixes and not path.name.startswith(".") and path.is_file()
    )


def to_rgb(image: Image.Image) -> Image.Image:
    """Return an image in memory as 8-bit RGB, as :func:`read_image` does, but not turned."""
    if image.mode == "F" or image.mode.startswith("I"):
        return _eight_bit(np.asarray(image)).convert("RGB")
    if image.mode in ("La", "RGBa"):  # colours already multiplied by the transparency
        image = image.convert({"La": "LA", "RGBa": "RGBA"}[image.mode])
    if not image.has_transparency_data:
        return image.convert("RGB")
    image = image.convert("RGBA")
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image).convert("RGB")


def _eight_bit(values: npt.NDArray[Any]) -> Image.Image:
    """Return grey of 8 bits from more bits or floats, which Pillow itself would clip at 255."""
    low, high = _range(values)
    unit = (values.astype(np.float64) - low) / ((high - low) or 1)
    return Image.fromarray(np.rint(255 * unit).astype(np.uint8))


def _range(values: npt.NDArray[Any]) -> tuple[float, float]:
    """Return the values of black and white."""
    low, high = float(values.min()), float(values.max())
    if not np.isfinite([low, high]).all():
        raise ValueError("it holds NaN or infinity")
    whole = 1 if values.dtype.kind == "f" else 65535
    return (0, whole) if low >= 0 and high <= whole else (low, high)
