"""Examples of Python objects: paths, data sets, or iterables of images."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from captum_gmar.engine.models.patch_grid import frame_count
from captum_gmar.evaluation.data.data_files import read_examples, row_examples
from captum_gmar.evaluation.data.example import Example, boxes_from, label_from
from captum_gmar.evaluation.data.subject import GivenClassifier, Subject, VideoClassifier, lay_on_sheet
from captum_gmar.files.images import read_image, to_rgb

_FORMS = "(image or pixel values, label, boxes or mask), or dictionaries of image or pixel_values, label, boxes, mask"
IMAGE = ("channels", "height", "width")
VIDEO = ("frames", *IMAGE)
_IMAGES = ("image", "pixel_values", "path")


def examples_from(data: Any, form: Sequence[str] = IMAGE) -> list[Example]:
    """Return the examples of data in any form that :func:`captum_gmar.evaluate` takes, with these dimensions."""
    if isinstance(data, str | PathLike):
        return read_examples(Path(data))
    if hasattr(data, "column_names") and hasattr(data, "features"):  # of the `datasets` library
        return row_examples(data, "data")
    if isinstance(data, Mapping) or (not isinstance(data, Iterable) and not hasattr(data, "__getitem__")):
        raise TypeError(f"data must be a path, a data set or an iterable of {_FORMS}, but got {type(data).__name__}.")
    items = data if hasattr(data, "__getitem__") and hasattr(data, "__len__") else list(data)
    examples = [_example(items, number, form) for number in range(len(items))]
    if not examples:
        raise ValueError("data must hold at least one image, but got none.")
    return examples


def make_subject(
    model: nn.Module, data: Any, processor: Any, forward_func: Callable[[Tensor], Tensor] | None
) -> Subject:
    """Return model and data, from the arguments of :func:`captum_gmar.evaluate`."""
    name = getattr(getattr(model, "config", None), "_name_or_path", "") or type(model).__name__
    if not frame_count(model):
        classifier = GivenClassifier(model, processor, forward_func=forward_func)
        return Subject(classifier, examples_from(data), name, data_name(data))
    video_classifier = VideoClassifier(model, processor, forward_func=forward_func)
    videos = [lay_on_sheet(example, video_classifier.sheet) for example in examples_from(data, VIDEO)]
    if any(example.boxes for example in videos):
        raise ValueError("data of a model of videos must have masks (frames, height, width), but got boxes.")
    return Subject(video_classifier, videos, name, data_name(data))


def data_name(data: Any) -> str:
    """Return the name of data in reports."""
    return str(data) if isinstance(data, str | PathLike) else type(data).__name__


class UnreadableItem(ValueError):
    """Error of the caller's own data set, which leaves out one item and not the others."""


def _example(items: Any, number: int, form: Sequence[str]) -> Example:
    """Return an example that is read anew whenever its image is needed, so that not all are held."""

    def parts() -> tuple[Any, Any, Any, Any]:
        return _item_parts(_item(items, number), number)

    def read() -> Image.Image | Tensor:
        return _image(parts()[0], number, form)

    try:
        image, label, boxes, mask = parts()
    except UnreadableItem:
        return Example(f"example {number}", None, read, is_broken=True)
    _check_one(image, label, number)
    path = [Path(image)] if isinstance(image, str | PathLike) else []
    return Example(
        str(image) if path else f"example {number}",
        label_from(label),
        partial(read_image, path[0]) if path else read,
        boxes_from(boxes, f"example {number}"),
        None if mask is None else lambda: _mask(parts()[3]),
        files=tuple(path) if mask is None else (),
    )


def _item(items: Any, number: int) -> Any:
    try:
        return items[number]
    except Exception as error:  # of the caller's code
        raise UnreadableItem(f"{type(error).__name__}: {error}") from error


def _check_one(image: object, label: object, number: int) -> None:
    """Check that arrays are images, and that label is one and not those of a batch."""
    if isinstance(label, Tensor | np.ndarray) and label.shape not in ((), (1,)):
        raise TypeError(
            f"example {number}: label must be one class, but got {type(label).__name__} of shape "
            f"{tuple(label.shape)}. Pass a data set, not a loader of batches."
        )
    if not isinstance(image, np.ndarray):
        return
    is_image = image.ndim == 2 or (image.ndim == 3 and image.shape[2] in (3, 4))
    if image.dtype != np.uint8 or not is_image:
        raise TypeError(
            f"example {number}: an array must be an image (height, width, channels) of uint8, but got {image.dtype} of "
            f"shape {image.shape}. Pass pixel values as tensors (channels, height, width)."
        )


def _item_parts(item: Any, number: int) -> tuple[Any, Any, Any, Any]:
    """Return image or pixel values or a path, label, boxes and mask of an item."""
    if isinstance(item, Mapping):
        images = [item[name] for name in _IMAGES if item.get(name) is not None]
        if not images:
            raise TypeError(f"example {number} must have one of {', '.join(_IMAGES)}, but got {list(item)}.")
        return images[0], item.get("label"), item.get("boxes"), item.get("mask")
    image, label, place, *rest = (*item, None, None) if isinstance(item, tuple | list) else (item, None, None)
    if any(part is not None for part in rest) or not isinstance(
        image, Image.Image | Tensor | np.ndarray | str | PathLike
    ):
        raise TypeError(f"data must hold {_FORMS}, but got {type(item).__name__} of {type(image).__name__}.")
    is_mask = isinstance(place, Image.Image | np.ndarray | Tensor)
    if isinstance(place, Tensor):  # boxes are numbers (objects, 4)
        is_mask = place.dim() >= 2 and not (place.is_floating_point() and place.shape[1:] == (4,))
    return (image, label, None, place) if is_mask else (image, label, place, None)


def _image(image: Any, number: int, form: Sequence[str]) -> Image.Image | Tensor:
    """Return an image, or pixel values (1, C, H, W), of a video (1, F, C, H, W)."""
    if isinstance(image, np.ndarray):
        image = Image.fromarray(image)
    if isinstance(image, Image.Image):
        return to_rgb(image)
    if not isinstance(image, Tensor):
        return read_image(image)
    pixels = image[None] if image.dim() == len(form) else image
    if pixels.dim() != len(form) + 1 or len(pixels) != 1 or not pixels.is_floating_point():
        raise ValueError(
            f"example {number}: pixel values must be a floating-point tensor ({', '.join(form)}), but got "
            f"{image.dtype} of shape {tuple(image.shape)}."
        )
    return pixels


def _mask(mask: Any) -> Image.Image | Tensor | None:
    """Return a mask as examples have them."""
    return torch.as_tensor(mask) if isinstance(mask, np.ndarray) else mask
