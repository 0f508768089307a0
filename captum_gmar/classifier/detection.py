"""Which query of a detector stands for an object: by its class, by a box around it, or both."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from captum_gmar.classifier.photo_frame import Corners


class Detection(NamedTuple):
    """What one query of a detector says.

    Attributes:
        query: its index.
        label: the class index.
        probability: that it gives this class.
        box: left, top, right and bottom of its box, in pixels.
    """

    query: int
    label: int
    probability: float
    box: Corners

    @property
    def target(self) -> tuple[int, int]:
        """(query, class), as :class:`~captum_gmar.AttentionEvidence` takes it."""
        return self.query, self.label


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
    """
    The query of a detector that stands best for a class, or for what lies in a box; of neither, the surest.

    Of a class it is the query that gives it the highest probability; of a box the one whose own overlaps it most, by
    intersection over union, among those that detect something, with its likeliest class; of both the one with the
    highest product of overlap and probability of the class. Where there is a class more than ``num_labels``, as in
    DETR, YOLOS and Table Transformer, classes compete and the last means no object; else each has its sigmoid.

    Args:
        output: what a detector of transformers returns for one image: ``logits`` (1, queries, classes) and
            ``pred_boxes`` (1, queries, 4), middle, width and height as shares of the image.
        num_labels (int): Of the model's ``config``.
        image_size (tuple of int): Height and width of the image in which boxes are given, in pixels.
        label (int, optional): The class.
        box (tuple of float, optional): Left, top, right and bottom, in pixels.
        shown (tuple of float, optional): Left, top, right and bottom of what the detector's boxes are shares of, in the
            same pixels: beyond the image, where that is padded and the detector takes no mask of the padding.
            Default: None, the image
        threshold (float, optional): How probable the class must be at least, in [0, 1].
            Default: 0.5

    Returns:
        Detection: **target** is (query, class); **box** its own box, in pixels.

    Raises:
        TypeError: if the output is no detector's.
        ValueError: if there is no such class, the output is not of one image, the box is empty or not within the image,
            or no query detects this.

    Example::

        >>> import torch
        >>> from types import SimpleNamespace
        >>> from captum_gmar import find_query
        >>> boxes = torch.tensor([[[0.25, 0.5, 0.5, 1.0], [0.75, 0.5, 0.5, 1.0]]])
        >>> output = SimpleNamespace(logits=torch.tensor([[[3.0, -3.0], [-3.0, 3.0]]]), pred_boxes=boxes)
        >>> find_query(output, 2, (100, 200), box=(110, 10, 190, 90)).target
        (1, 1)
        >>> find_query(output, 2, (100, 200), label=0).box
        (0.0, 0.0, 100.0, 100.0)
    """
    if min(image_size) <= 0:
        raise ValueError(f"image_size must be a height and width above zero, but got {tuple(image_size)}.")
    shown = (0, 0, image_size[1], image_size[0]) if shown is None else shown
    probabilities, boxes = _read_queries(output, num_labels, shown)
    if label is not None and not 0 <= label < num_labels:
        raise ValueError(f"label must be from 0 to {num_labels - 1} for this model. Got {label} instead.")
    of_query, classes = probabilities.max(1) if label is None else (probabilities[:, label], None)
    detects = of_query >= threshold
    fit = of_query if box is None else _intersection_over_union(boxes, _checked_box(box, image_size))
    if box is not None and label is not None:
        fit = fit * of_query
    fit = fit.where(detects, 0)
    query = int(fit.argmax())
    if not detects.any() or (box is not None and not fit[query]):
        raise _no_query(label, box, of_query, threshold)
    chosen = int(classes[query]) if classes is not None else label
    assert chosen is not None
    left, top, right, bottom = boxes[query].tolist()
    return Detection(query, chosen, float(of_query[query]), (left, top, right, bottom))


def _read_queries(output: Any, num_labels: int, shown: Corners) -> tuple[Tensor, Tensor]:
    """Probabilities (queries, labels), and boxes (queries, 4) from left and top to right and bottom, in pixels."""
    logits, boxes = getattr(output, "logits", None), getattr(output, "pred_boxes", None)
    if not isinstance(logits, Tensor) or not isinstance(boxes, Tensor):
        raise TypeError(
            f"output must be a detector's, with logits and pred_boxes. Got {type(output).__name__} instead."
        )
    if logits.dim() != 3 or len(logits) != 1 or boxes.shape != (*logits.shape[:2], 4):
        raise ValueError(
            "output must be of one image, logits (1, queries, classes) and pred_boxes (1, queries, 4). Got "
            f"{tuple(logits.shape)} and {tuple(boxes.shape)} instead."
        )
    logits, boxes = logits[0].detach().double().cpu(), boxes[0].detach().double().cpu()
    middle, extent = boxes[:, :2], boxes[:, 2:]
    has_none = logits.shape[1] == num_labels + 1
    probabilities = logits.softmax(-1)[:, :-1] if has_none else logits.sigmoid()
    left, top, right, bottom = shown
    corners = torch.cat([middle - extent / 2, middle + extent / 2], -1)
    extents, starts = [right - left, bottom - top] * 2, [left, top] * 2
    return probabilities, corners * torch.tensor(extents, dtype=torch.float64) + torch.tensor(starts)


def _checked_box(box: Corners, image_size: tuple[int, int]) -> Tensor:
    height, width = image_size
    left, top, right, bottom = box if len(box) == 4 else (0, 0, 0, 0)
    if not (0 <= left < right <= width and 0 <= top < bottom <= height):
        raise ValueError(
            "box must be left, top, right and bottom, in pixels, not empty and within the image of "
            f"{width}x{height} pixels. Got {tuple(box)} instead."
        )
    return torch.tensor(box, dtype=torch.float64)


def _intersection_over_union(boxes: Tensor, box: Tensor) -> Tensor:
    """Intersection over union of boxes (queries, 4) with one."""
    shared = (torch.minimum(boxes[:, 2:], box[2:]) - torch.maximum(boxes[:, :2], box[:2])).clamp(min=0).prod(1)
    areas = (boxes[:, 2:] - boxes[:, :2]).clamp(min=0).prod(1)
    return shared / (areas + (box[2:] - box[:2]).prod() - shared)


def _no_query(label: int | None, box: Corners | None, probabilities: Tensor, threshold: float) -> ValueError:
    parts = "any class" if label is None else f"class {label}", "" if box is None else f"in the box {box}"
    what = " ".join(filter(None, parts))
    return ValueError(
        f"Expected a query that detects {what} with a probability of {threshold} or more, but found none: the highest "
        f"of any query is {float(probabilities.max()):.3g}. Pass another label or box, or a lower threshold."
    )
