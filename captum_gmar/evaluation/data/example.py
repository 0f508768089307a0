"""An image of the data with its label and objects."""

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
    """Digests that say whether an example is the one that was measured."""

    name: str
    stamp: str  # of label and boxes, and of size and time of its files; empty where it comes from none
    digest: str  # of label and boxes, and of the content of image and mask


@dataclass(frozen=True)
class Example:
    """An image with its label and objects."""

    name: str  # as the data names it
    label: str | int | None  # a class name, or a class index
    read: Callable[[], Image.Image | Tensor]  # the image, or pixel values (1, C, H, W) that are ready for the model
    boxes: tuple[Box, ...] = ()
    mask: Callable[[], Image.Image | Tensor | None] | None = None  # reads it
    files: tuple[Path, ...] = ()  # that hold image and mask
    is_broken: bool = False  # it has no label or object, and ``read`` raises the error

    @property
    def has_object(self) -> bool:
        """True if the place of the object is known."""
        return bool(self.boxes) or self.mask is not None

    def read_mask(self, width: int, height: int) -> Image.Image | None:
        """Return an image, white on the object, black elsewhere; None if the place of the object is not known."""
        mask = self.mask() if self.mask else None
        if mask is None:
            return _white_where(boxes_to_masks([self.boxes], height, width)[0].numpy()) if self.boxes else None
        image = _white_where(_on_object(mask)) if isinstance(mask, Tensor) else _black_and_white(mask)
        if image.size != (width, height):
            raise ValueError(f"its mask is of {image.width}x{image.height} pixels and the image of {width}x{height}")
        return image

    def identity(self) -> Identity:
        """Return its digests, of its files or, where it comes from none, of its content."""
        return Identity(self.name, self._stamp(), self._digest())

    def is_same(self, measured: Identity) -> bool:
        """Compare it to what was measured: size and time of its files, or else the content."""
        try:
            return (bool(self.files) and self._stamp() == measured.stamp) or self._digest() == measured.digest
        except (OSError, ValueError):
            return False  # measuring it anew leaves it out

    def _stamp(self) -> str:
        return fingerprint([self._label_bytes(), *map(_size_and_time, self.files)]) if self.files else ""

    def _digest(self) -> str:
        if self.files:
            return fingerprint([self._label_bytes(), *map(_file_content, self.files)])
        mask = self.mask() if self.mask else None
        return fingerprint([self._label_bytes(), *map(_content, [self.read(), *([] if mask is None else [mask])])])

    def _label_bytes(self) -> bytes:
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
    """Return the boxes of a list, or of its JSON text; None and the empty text are no boxes."""
    if boxes is None or (isinstance(boxes, str) and not boxes):
        return ()
    try:
        rows = json.loads(boxes) if isinstance(boxes, str) else boxes
        corners = tuple(tuple(map(float, box)) for box in rows)
    except (TypeError, ValueError):
        corners = ((),)
    if not all(len(box) == 4 and all(map(math.isfinite, box)) for box in corners):
        raise ValueError(f"{place}: boxes must be a list of (x0, y0, x1, y1), but got {boxes!r}.")
    return corners  # type: ignore[return-value]


def fingerprint(parts: Iterable[bytes]) -> str:
    """Return a short digest of the parts."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(hashlib.sha256(part).digest())
    return digest.hexdigest()[:16]


def _size_and_time(path: Path) -> bytes:
    """Return nothing of an absent file: reading it raises the error."""
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


def _on_object(mask: Tensor) -> npt.NDArray[np.bool_]:
    if mask.is_complex() or not mask.isfinite().all():
        raise ValueError("its mask must be of finite real numbers, but got others.")
    return (mask.detach().cpu().reshape(mask.shape[-2:]) > 0).numpy()


def _white_where(mask: npt.NDArray[np.bool_]) -> Image.Image:
    return Image.fromarray(np.where(mask, 255, 0).astype(np.uint8))


def _black_and_white(mask: Image.Image) -> Image.Image:
    """Return white where a value of any range, or the index of a colour, is above zero."""
    opaque = mask.convert("RGB") if mask.mode in ("RGBA", "LA", "PA", "La", "RGBa") else mask
    values: npt.NDArray[Any] = np.asarray(opaque)
    return _white_where((values != 0).any(axis=tuple(range(2, values.ndim))))
