"""The score by which a segmenter is explained: a class's mean logit over a region of a photo."""

from typing import NamedTuple

import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from captum_gmar.classifier.class_names import find_class
from captum_gmar.classifier.image_classifier import Classifier, check_classifier
from captum_gmar.classifier.photo_frame import PhotoFrame

MAP_DIMS = 4  # of logits


class ClassRegion(NamedTuple):
    """A class over a region of a photo, and its score."""

    segmenter: Classifier  # the model, and its image processor
    pixels: Tensor  # (1, channels, height, width), on the model's device
    label: int  # the class index
    region: Tensor  # boolean (rows, columns) of the logits

    def mean_logit(self, pixels: Tensor) -> Tensor:
        """Return the mean logit of the class over the region, (N,), for pixels (N, channels, height, width)."""
        return self.segmenter.logits(pixels)[:, self.label, self.region].mean(1)


def find_region(
    segmenter: Classifier,
    photo: Image.Image,
    *,
    label: int | str | None = None,
    mask: Image.Image | None = None,
    point: tuple[float, float] | None = None,
) -> ClassRegion:
    """Find the region of a photo over which a segmenter is explained, and the class.

    Args:
        segmenter (Classifier): A semantic segmenter and its image processor, ``Classifier(model, processor)``.
        photo (PIL.Image.Image): RGB.
        label (int or str, optional): The class. Default: None, the most frequent prediction in the region.
        mask (PIL.Image.Image, optional): As large as the photo: white over the region, black elsewhere.
            Default: None, the point, or where the model predicts the class
        point (tuple of float, optional): x and y of the region's one place, in pixels of the photo.

    Returns:
        ClassRegion: Its **mean_logit** is the ``forward_func`` of a method, and **pixels** are the inputs.

    Raises:
        TypeError: if the segmenter is no Classifier, or photo or mask no image.
        ValueError: if the model is no semantic segmenter, there is no such class, the model predicts it nowhere, mask
            and point are both given, the model does not see the region, or the image processor does more than resize,
            crop and pad.
    """
    check_classifier(segmenter, "segmenter")
    if mask is not None and point is not None:
        raise ValueError("mask cannot be combined with point. Pass one of both.")
    pixels = segmenter.pixel_values(photo).to(segmenter.device)
    with torch.no_grad():
        logits = segmenter.logits(pixels)
    if logits.dim() != MAP_DIMS:
        raise ValueError(
            "segmenter must give logits (examples, classes, rows, columns), but got shape "
            f"{tuple(logits.shape)}. Pass a model for semantic segmentation."
        )
    predicted = logits[0].argmax(0)  # (rows, columns)
    shape = predicted.shape[0], predicted.shape[1]
    region = None
    if mask is not None:
        region = _masked_region(segmenter.frame(photo), mask, shape).to(predicted.device)
    elif point is not None:
        region = _region_at(segmenter.frame(photo), point, shape).to(predicted.device)
    if label is None:
        index = int((predicted.flatten() if region is None else predicted[region]).mode().values)
    else:
        index = find_class(label, segmenter.labels, "label")
    region = predicted == index if region is None else region
    if not region.any():
        name = f"{segmenter.labels[index]} (class {index})"
        raise ValueError(f"model must predict {name} somewhere, but does so nowhere. Pass a mask or a point.")
    return ClassRegion(segmenter, pixels, index, region)


def _masked_region(frame: PhotoFrame, mask: Image.Image, shape: tuple[int, int]) -> Tensor:
    if not isinstance(mask, Image.Image):
        raise TypeError(f"mask must be a PIL image as large as the photo, but got {type(mask).__name__}.")
    region = adaptive_avg_pool2d(frame.mask(mask)[None].float(), shape)[0] >= 0.5
    if not region.any():
        raise ValueError("mask must be white somewhere, but got a mask that covers no place of the model's output.")
    return region


def _region_at(frame: PhotoFrame, point: tuple[float, float], shape: tuple[int, int]) -> Tensor:
    x, y = frame.point(point)
    region = torch.zeros(shape, dtype=torch.bool)
    region[int(y * shape[0] / frame.size[0]), int(x * shape[1] / frame.size[1])] = True
    return region
