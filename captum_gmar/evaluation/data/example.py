"""One image of the data, and what is known of it."""

import hashlib
import json
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from captum_gmar.metrics import boxes_to_masks

Box: TypeAlias = tuple[float, float, float, float]  # x0, y0, x1, y1 in pixels of the image as it is seen


class Identity(NamedTuple):
    """What tells whether an example is the one that was measured, or another in its place."""

    name: str
    stamp: str  # of what is known of it, and of size and time of its files; empty where it comes from none
    digest: str  # of what is known of it, and of the content of image and mask


@dataclass(frozen=True)
class Example:
    """One image, and what is known of it."""

    name: str  # as the data names it
    label: str | int | None  # a class name, or a class index
    read: Callable[[], Image.Image | Tensor]  # the image, or pixel values (1, C, H, W) that are ready for the model
    boxes: tuple[Box, ...] = ()
    mask: Callable[[], Image.Image | Tensor | None] | None = None  # reads it
    files: tuple[Path, ...] = ()  # that hold image and mask
    is_broken: bool = False  # nothing is known of it, and ``read`` says why

    @property
    def has_object(self) -> bool:
        """Whether it is known where the object is."""
        return bool(self.boxes) or self.mask is not None

    def read_mask(self, width: int, height: int) -> Image.Image | None:
        """White on the object, black elsewhere, of the size of the image; None if it is not known where that is.

        Raises:
            OSError: if the mask cannot be read.
            ValueError: if the mask is of another size, or a box does not fit the image.
        """
        mask = self.mask() if self.mask else None
        if mask is None:
            return _boxes_mask(self.boxes, width, height) if self.boxes else None
        image = _white_where(_on_object(mask)) if isinstance(mask, Tensor) else _black_and_white(mask)
        if image.size != (width, height):
            raise ValueError(f"its mask is of {image.width}x{image.height} pixels and the image of {width}x{height}")
        return image

    def identity(self) -> Identity:
        """Reads its files, or all of it where it comes from none.

        Raises:
            OSError, ValueError: if it cannot be read where it comes from no file.
        """
        return Identity(self.name, self._stamp(), self._digest())

    def is_same(self, measured: Identity) -> bool:
        """Whether it is what was measured: by size and time of its files, and where these differ by their content."""
        try:
            return (bool(self.files) and self._stamp() == measured.stamp) or self._digest() == measured.digest
        except (OSError, ValueError):
            return False  # what cannot be read any more is left out where it is measured anew

    def _stamp(self) -> str:
        return fingerprint([self._known(), *map(_size_and_time, self.files)]) if self.files else ""

    def _digest(self) -> str:
        if self.files:
            return fingerprint([self._known(), *map(_file_content, self.files)])
        mask = self.mask() if self.mask else None
        return fingerprint([self._known(), *map(_content, [self.read(), *([] if mask is None else [mask])])])

    def _known(self) -> bytes:
        return repr((self.label, self.boxes, self.mask is not None)).encode()


def label_from(label: Any) -> str | int | None:
    """Return a label as an example has it: a whole number is a class index, all else is text.

    >>> label_from(3), label_from("3"), label_from("")
    (3, '3', None)
    """
    if label is None or (isinstance(label, str) and not label):
        return None
    is_index = isinstance(label, int | np.integer | Tensor) and not isinstance(label, bool)
    return int(label) if is_index else str(label)


def boxes_from(boxes: Any, place: str) -> tuple[Box, ...]:
    """Of a list of boxes, or the JSON text of one.

    Args:
        boxes: what is to be read; None and the empty text are no boxes.
        place: how errors name it.

    Raises:
        ValueError: if it is none of these.
    """
    if boxes is None or (isinstance(boxes, str) and not boxes):
        return ()
    try:
        rows = json.loads(boxes) if isinstance(boxes, str) else boxes
        corners = tuple(tuple(map(float, box)) for box in rows)
    except (TypeError, ValueError):
        corners = ((),)
    if not all(len(box) == 4 and all(map(math.isfinite, box)) for box in corners):
        raise ValueError(f"{place}: boxes must be a list of (x0, y0, x1, y1). Got {boxes!r} instead.")
    return corners  # type: ignore[return-value]


def fingerprint(parts: Iterable[bytes]) -> str:
    """Short, and another where anything differs."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(hashlib.sha256(part).digest())
    return digest.hexdigest()[:16]


def _size_and_time(path: Path) -> bytes:
    """Nothing of a file that is not there: whoever reads it will say so."""
    try:
        stat = path.stat()
    except OSError:
        return b""
    return repr((stat.st_size, stat.st_mtime_ns)).encode()


def _file_content(path: Path) -> bytes:
    try:
        return path.read_bytes() if path.is_file() else b""  # a pipe would be waited for
    except OSError:
        return b""


def _content(image: Image.Image | Tensor) -> bytes:
    if isinstance(image, Tensor):
        numbers = image.detach().cpu().contiguous().view(torch.uint8).numpy()
        return repr((image.dtype, image.shape)).encode() + numbers.tobytes()
    return repr((image.mode, image.size)).encode() + image.tobytes()


def _boxes_mask(boxes: Iterable[Box], width: int, height: int) -> Image.Image:
    (mask,) = boxes_to_masks([tuple(boxes)], height, width)
    return _white_where(mask.numpy())


def _on_object(mask: Tensor) -> npt.NDArray[np.bool_]:
    if mask.is_complex() or not mask.isfinite().all():
        raise ValueError("its mask must be of finite real numbers. Got others.")
    return (mask.detach().cpu().reshape(mask.shape[-2:]) > 0).numpy()


def _white_where(mask: npt.NDArray[np.bool_]) -> Image.Image:
    return Image.fromarray(np.where(mask, 255, 0).astype(np.uint8))


def _black_and_white(mask: Image.Image) -> Image.Image:
    """White wherever a value, of whatever range, or the index of a colour is above zero."""
    opaque = mask.convert("RGB") if mask.mode in ("RGBA", "LA", "PA", "La", "RGBa") else mask
    values: npt.NDArray[Any] = np.asarray(opaque)
    return _white_where((values != 0).any(axis=tuple(range(2, values.ndim))))
