"""Relevance summed over the things in a photo: objects, parts, superpixels or boxes."""

from collections.abc import Mapping
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor

__all__ = ["SegmentRelevance", "relevance_by_segment"]

Segments: TypeAlias = Any
"""Label map (height, width), or a mapping from names to masks (height, width) or boxes."""
ELSEWHERE = "elsewhere"


class SegmentRelevance(NamedTuple):
    """Row of :func:`relevance_by_segment`."""

    name: str
    relevance: float  # sum over the segment, in the unit of the map
    area: float  # share of the photo


def relevance_by_segment(
    relevance: Any,
    segments: Segments,
    *,
    size: tuple[int, int] | None = None,
    crop: tuple[float, float, float, float] | None = None,
) -> list[SegmentRelevance]:
    r"""Sum relevance over each segment of a photo.

    .. math:: R_s = \sum_{ij} r_{ij} \, |P_{ij} \cap s| / |P_{ij}|

    where :math:`P_{ij}` is the rectangle of a patch, or of a pixel, in the photo. The last row has what no segment
    holds, so the sums add up to that of the map. Where several masks or boxes overlap, each has an equal part.

    Args:
        relevance (Tensor or numpy.ndarray): Of one example: (rows, columns) of patches; or of pixels, (height, width)
            or (channels, height, width), whose channels are summed.
        segments (Tensor, numpy.ndarray or dict): Integer label map (height, width) in pixels of the photo or of the
            model's input; or from names to masks (height, width), or to boxes: left, top, right and bottom in pixels.
        size (tuple of int, optional): Height and width of the photo; needed for boxes alone.
        crop (tuple of float, optional): Left, top, right and bottom of the map in the photo, in pixels:
            ``classifier.frame(photo).crop`` of :class:`captum_gmar.classifier.Classifier`.
            Default: None, the whole photo

    Returns:
        list of SegmentRelevance: A row for each segment, and the last for the rest, "elsewhere".
        ``pandas.DataFrame(rows)`` is their table.

    Raises:
        TypeError: if relevance or segments are none of these types.
        ValueError: if shapes do not fit, the map is not finite, or a box or the crop is empty.

    Example::

        >>> import torch
        >>> from captum_gmar.metrics import relevance_by_segment
        >>> for row in relevance_by_segment(torch.tensor([[3.0, 1.0]]), {"cup": (0, 0, 3, 2)}, size=(2, 4)):
        ...     print(row.name, row.relevance, row.area)
        cup 3.5 0.75
        elsewhere 0.5 0.25
    """
    values, parts = _map_of(relevance), as_masks(segments, size)
    height, width = next(iter(parts.values())).shape
    left, top, right, bottom = (0, 0, width, height) if crop is None else _box(crop, "crop")
    rows = _overlaps(top, bottom, values.shape[0], height)
    columns = _overlaps(left, right, values.shape[1], width)
    per_pixel = rows.T @ values @ columns  # relevance that falls on each pixel
    shared = torch.stack(list(parts.values())).sum(0, dtype=torch.float64).clamp(min=1)  # by the segments at a pixel
    sums = {name: float((part * per_pixel / shared).sum()) for name, part in parts.items()}
    areas = {name: float((part / shared).mean()) for name, part in parts.items()}
    rest = SegmentRelevance(ELSEWHERE, float(values.sum()) - sum(sums.values()), 1 - sum(areas.values()))
    return [*(SegmentRelevance(name, sums[name], areas[name]) for name in parts), rest]


def as_masks(segments: Segments, size: tuple[int, int] | None = None) -> dict[str, Tensor]:
    """Return masks (height, width) of segments, from 0 to 1 where boxes cut pixels; raises as
    :func:`relevance_by_segment`.
    """
    if not isinstance(segments, Mapping):
        labels = torch.as_tensor(segments).cpu()
        if labels.dim() != 2 or not labels.numel() or labels.is_floating_point():
            raise ValueError(
                f"segments must be integers (height, width), but got {labels.dtype} {tuple(labels.shape)}."
            )
        segments = {str(label): labels == label for label in sorted(set(labels.flatten().tolist()))}
    parts = {str(name): torch.as_tensor(part).detach().cpu() for name, part in segments.items()}
    sizes = {tuple(part.shape) for part in parts.values() if part.dim() == 2}
    sizes |= set() if size is None else {tuple(size)}
    if not parts or len(sizes) != 1:
        raise ValueError(
            "segments must be at least one, all of one size, and boxes require size=(height, width), but got "
            f"{sorted(sizes) or 'no size'}."
        )
    return {name: _as_mask(part, name, *next(iter(sizes))) for name, part in parts.items()}


def _map_of(relevance: Any) -> Tensor:
    values: Tensor = torch.as_tensor(relevance).detach().cpu().double()
    values = values.sum(0) if values.dim() == 3 else values
    if values.dim() != 2 or not values.numel() or not values.isfinite().all():
        raise ValueError(
            "relevance must be one finite map, (rows, columns), (height, width) or (channels, height, width), but got "
            f"shape {tuple(values.shape)}."
        )
    return values


def _as_mask(part: Tensor, name: str, height: int, width: int) -> Tensor:
    if part.dim() == 2:
        return part.double().clamp(0, 1) if part.is_floating_point() else part > 0
    left, top, right, bottom = _box(part, f"segments[{name!r}]")
    return (_overlaps(top, bottom, 1, height) * (bottom - top)).T @ _overlaps(left, right, 1, width) * (right - left)


def _box(corners: Any, name: str) -> tuple[float, float, float, float]:
    box = torch.as_tensor(corners).double().flatten().tolist()
    if len(box) != 4 or not (box[0] < box[2] and box[1] < box[3]):
        raise ValueError(f"{name} must be left, top, right and bottom, in pixels, but got {box}.")
    return box[0], box[1], box[2], box[3]


def _overlaps(start: float, end: float, cells: int, pixels: int) -> Tensor:
    """Return what share (cells, pixels) of each of the cells from start to end lies in each pixel."""
    edges = torch.linspace(start, end, cells + 1, dtype=torch.float64)[:, None]
    places = torch.arange(pixels, dtype=torch.float64)
    lengths = torch.minimum(edges[1:], places + 1) - torch.maximum(edges[:-1], places)
    return lengths.clamp(min=0) * cells / (end - start)
