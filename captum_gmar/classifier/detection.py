"""The query of a detector that stands for an object: by its class, by a box around it, or both."""

from numbers import Integral, Real
from typing import Any, NamedTuple

import torch
from PIL import Image
from torch import Tensor

from captum_gmar.classifier.class_names import find_class
from captum_gmar.classifier.image_classifier import PADDING_MASK, Classifier, check_classifier
from captum_gmar.classifier.photo_frame import CORNERS, Corners, check_numbers


class Detection(NamedTuple):
    """One query of a detector, and its prediction."""

    query: int  # its index
    label: int  # the class index
    probability: float  # of this class
    box: Corners  # left, top, right and bottom, in pixels

    @property
    def target(self) -> tuple[int, int]:
        """(query, class), as :class:`~captum_gmar.TokenEvidence` takes it."""
        return self.query, self.label


class DetectedObject(NamedTuple):
    """An object that a detector finds in a photo."""

    detector: Classifier  # the model, and its image processor
    inputs: dict[str, Tensor]  # of the model by name, on its device
    detection: Detection  # the query, with its box in pixels of the photo

    @property
    def pixels(self) -> Tensor:
        """The model's input (1, channels, height, width)."""
        return self.inputs["pixel_values"]

    def logits(self, pixels: Tensor) -> Tensor:
        """Return the logits (N, queries, classes) for pixels (N, channels, height, width), padded as the photo is."""
        masks = {name: mask.expand(len(pixels), -1, -1) for name, mask in self.inputs.items() if name == PADDING_MASK}
        logits: Tensor = self.detector.model(pixel_values=pixels, **masks).logits
        return logits


def find_object(
    detector: Classifier,
    photo: Image.Image,
    *,
    label: int | str | None = None,
    box: Corners | None = None,
    threshold: float = 0.5,
) -> DetectedObject:
    """Find the object in a photo that a detector is explained by, as :func:`find_query` chooses it.

    Args:
        detector (Classifier): A detector and its image processor, ``Classifier(model, processor)``.
        photo (PIL.Image.Image): RGB.
        label (int or str, optional): The class.
        box (tuple of float, optional): Left, top, right and bottom, in pixels of the photo.
        threshold (float, optional): How probable the class must be at least, in [0, 1].

    Returns:
        DetectedObject: Its **logits** are the ``forward_func`` of a method, **pixels** the inputs, and
        ``detection.target`` the target.

    Raises:
        TypeError: if the detector is no Classifier, its model no detector, or the photo no image.
        ValueError: if there is no such class, the model does not see the box, no query detects this, or the image
            processor does more than resize, crop and pad.
    """
    check_classifier(detector, "detector")
    inputs = {name: values.to(detector.device) for name, values in detector.inputs(photo).items()}
    frame = detector.frame(photo)
    index = None if label is None else find_class(label, detector.labels, "label")
    with torch.no_grad():
        output = detector.model(**inputs)
    shown = frame.to_photo(_unmasked_part(inputs["pixel_values"], inputs.get(PADDING_MASK)))
    visible = None if box is None else frame.box(box)
    given = output, len(detector.labels), (photo.height, photo.width)
    detection = find_query(*given, label=index, box=visible, shown=shown, threshold=threshold)
    return DetectedObject(detector, inputs, detection)


def _unmasked_part(pixels: Tensor, mask: Tensor | None) -> Corners:
    """Return the part of the pixel values of which boxes are shares: all that the model is not told to be padding."""
    if mask is None:
        return 0, 0, pixels.shape[-1], pixels.shape[-2]
    _, rows, columns = mask.nonzero(as_tuple=True)
    return int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1


def find_query(
    output: Any,
    num_labels: int,
    image_size: tuple[int, int],
    *,
    label: int | None = None,
    box: Corners | None = None,
    shown: Corners | None = None,
    threshold: float = 0.5,
) -> Detection:
    """Find the query of a detector that stands best for a class or a box. Without either, find the surest one.

    For a class it is the query that gives it the highest probability; for a box the one whose own overlaps it most, by
    intersection over union, among those that detect something, with its likeliest class; for both the one with the
    highest product of overlap and probability of the class. Where there is a class more than ``num_labels``, as in
    DETR, YOLOS and Table Transformer, classes compete and the last means no object; else each has its sigmoid.

    Args:
        output: what a detector of transformers returns for one image: ``logits`` (1, queries, classes) and
            ``pred_boxes`` (1, queries, 4), middle, width and height as shares of the image.
        num_labels (int): That of the model's ``config``.
        image_size (tuple of int): Height and width of the image in which boxes are given, in pixels.
        label (int, optional): The class.
        box (tuple of float, optional): Left, top, right and bottom, in pixels.
        shown (tuple of float, optional): Left, top, right and bottom of what the detector's boxes are shares of, in the
            same pixels: beyond the image, where that is padded and the detector takes no mask of the padding.
            Default: None, the image
        threshold (float, optional): How probable the class must be at least, in [0, 1].

    Returns:
        Detection: **target** is (query, class); **box** its own box, in pixels.

    Raises:
        TypeError: if the output is no detector's.
        ValueError: if there is no such class, the output is not of one image or of so many labels, the box is empty or
            not within the image, the threshold is no probability, or no query detects this.

    Example::

        >>> import torch
        >>> from types import SimpleNamespace
        >>> from captum_gmar.classifier import find_query
        >>> boxes = torch.tensor([[[0.25, 0.5, 0.5, 1.0], [0.75, 0.5, 0.5, 1.0]]])
        >>> output = SimpleNamespace(logits=torch.tensor([[[3.0, -3.0], [-3.0, 3.0]]]), pred_boxes=boxes)
        >>> find_query(output, 2, (100, 200), box=(110, 10, 190, 90)).target
        (1, 1)
        >>> find_query(output, 2, (100, 200), label=0).box
        (0.0, 0.0, 100.0, 100.0)
    """
    height, width = check_numbers(image_size, "image_size", "height and width")
    if not (height > 0 and width > 0):
        raise ValueError(f"image_size must be a height and width above zero, but got {tuple(image_size)}.")
    if not isinstance(threshold, Real) or not 0 <= threshold <= 1:
        raise ValueError(f"threshold must be a number in [0, 1], but got {threshold!r}.")
    shown = (0, 0, image_size[1], image_size[0]) if shown is None else shown
    probabilities, boxes = _read_queries(output, num_labels, shown)
    if label is not None and not (isinstance(label, Integral) and 0 <= label < num_labels):
        raise ValueError(f"label must be from 0 to {num_labels - 1} for this model, but got {label!r}.")
    if label is None:
        likeliest, classes = probabilities.max(1)
    else:
        likeliest, classes = probabilities[:, label], torch.full((len(probabilities),), label)
    detects = likeliest >= threshold
    fit = likeliest if box is None else _intersection_over_union(boxes, _checked_box(box, image_size))
    if box is not None and label is not None:
        fit = fit * likeliest
    fit = fit.where(detects, 0)
    query = int(fit.argmax())
    if not detects.any() or (box is not None and not fit[query]):
        raise _no_query(label, box, likeliest, threshold)
    left, top, right, bottom = boxes[query].tolist()
    return Detection(query, int(classes[query]), float(likeliest[query]), (left, top, right, bottom))


def _read_queries(output: Any, num_labels: int, shown: Corners) -> tuple[Tensor, Tensor]:
    """Return probabilities (queries, labels) and boxes (queries, 4) as left, top, right and bottom, in pixels."""
    logits, boxes = getattr(output, "logits", None), getattr(output, "pred_boxes", None)
    if not isinstance(logits, Tensor) or not isinstance(boxes, Tensor):
        raise TypeError(f"output must be a detector's, with logits and pred_boxes, but got {type(output).__name__}.")
    if logits.dim() != 3 or len(logits) != 1 or not logits.numel() or boxes.shape != (*logits.shape[:2], 4):
        raise ValueError(
            "output must be of one image, logits (1, queries, classes) and pred_boxes (1, queries, 4), but got "
            f"{tuple(logits.shape)} and {tuple(boxes.shape)}."
        )
    columns = logits.shape[2]
    if num_labels not in (columns, columns - 1) or num_labels < 1:
        raise ValueError(
            f"num_labels must be the model's, which has {columns} logits a query: as many classes, or one fewer where "
            f"the last logit means no object, but got {num_labels!r}."
        )
    logits, boxes = logits[0].detach().double().cpu(), boxes[0].detach().double().cpu()
    middle, extent = boxes[:, :2], boxes[:, 2:]
    has_none = columns > num_labels
    probabilities = logits.softmax(-1)[:, :-1] if has_none else logits.sigmoid()
    left, top, right, bottom = check_numbers(shown, "shown", CORNERS)
    corners = torch.cat([middle - extent / 2, middle + extent / 2], -1)
    extents, starts = [right - left, bottom - top] * 2, [left, top] * 2
    return probabilities, corners * torch.tensor(extents, dtype=torch.float64) + torch.tensor(starts)


def _checked_box(box: Corners, image_size: tuple[int, int]) -> Tensor:
    height, width = image_size
    left, top, right, bottom = check_numbers(box, "box", CORNERS)
    if not (0 <= left < right <= width and 0 <= top < bottom <= height):
        raise ValueError(f"box must be {CORNERS}, in the image of {width}x{height} pixels, but got {tuple(box)}.")
    return torch.tensor([left, top, right, bottom], dtype=torch.float64)


def _intersection_over_union(boxes: Tensor, box: Tensor) -> Tensor:
    shared = (torch.minimum(boxes[:, 2:], box[2:]) - torch.maximum(boxes[:, :2], box[:2])).clamp(min=0).prod(1)
    areas = (boxes[:, 2:] - boxes[:, :2]).clamp(min=0).prod(1)
    return shared / (areas + (box[2:] - box[:2]).prod() - shared)


def _no_query(label: int | None, box: Corners | None, probabilities: Tensor, threshold: float) -> ValueError:
    what = f"{'any class' if label is None else f'class {label}'}{'' if box is None else f' in the box {box}'}"
    highest = float(probabilities.max())
    reason = f"the highest of any query is {highest:.3g}" if highest < threshold else "queries that do are elsewhere"
    return ValueError(
        f"model must detect {what} with a probability of {threshold} or more, but does not: {reason}. Pass another "
        "label or box, or a lower threshold."
    )
