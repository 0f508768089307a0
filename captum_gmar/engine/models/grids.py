"""Fields: a number for every place of a grid over an image or a video, and how they lie on one another and on pixels.

A grid has two dimensions (rows, columns) or three (time, rows, columns).
"""

from collections.abc import Iterable, Sequence
from math import ceil, prod
from typing import NamedTuple

import torch
from torch import Tensor

Shape = tuple[int, ...]


class FieldGrid(NamedTuple):
    """How inputs are cut into places, evenly, along each of the dimensions that are cut.

    Attributes:
        shape: how many places, (rows, columns) or (time, rows, columns).
        dims: which dimensions of the inputs these are cut of.
    """

    shape: Shape
    dims: Shape

    @property
    def patches(self) -> int:
        """How many places there are."""
        return prod(self.shape)

    def spread_like(self, relevance: Tensor, inputs: Tensor) -> Tensor:
        """Each place's share for each of its numbers: (N, *shape) → as ``inputs`` are, with the sum kept."""
        shares = stretched(relevance, tuple(inputs.shape[dim] for dim in self.dims))
        whole = [dim for dim in range(1, inputs.dim()) if dim not in self.dims]
        order = sorted(range(len(self.dims)), key=lambda place: self.dims[place])
        shares = shares.permute(0, *(place + 1 for place in order))
        for dim in whole:
            shares = shares.unsqueeze(dim)
        shares = shares / prod(inputs.shape[dim] for dim in whole)
        return shares.expand(inputs.shape).to(inputs.device, inputs.dtype).contiguous()

    def covered(self, attributions: Tensor) -> Tensor:
        """All of it, as every number of the inputs lies in a place."""
        return attributions


class PackedGrid(FieldGrid):
    """Of inputs (N, patches, numbers) that come cut already, the first of them being the places."""

    def spread_like(self, relevance: Tensor, inputs: Tensor) -> Tensor:
        """Each patch's share for each of its numbers; what comes after the patches gets none."""
        shares = inputs.new_zeros(inputs.shape)
        shares[:, : self.patches] = (relevance.flatten(1)[..., None] / inputs.shape[-1]).to(inputs)
        return shares


def stretched(field: Tensor, shape: Shape) -> Tensor:
    """The field (N, *coarse) on a finer grid (N, *shape), each place's number spread evenly over what it came from."""
    for dim, size in enumerate(shape, 1):
        if field.shape[dim] != size:
            field = (field.movedim(dim, -1) @ overlap(field.shape[dim], size).to(field)).movedim(-1, dim)
    return field


def overlap(coarse: int, fine: int) -> Tensor:
    """(coarse, fine) the shares of each coarse place in the fine ones, each row summing to 1.

    Where places were merged by a whole number, the last of them may have been padded; else they lie evenly.
    """
    merged = ceil(fine / coarse)
    if ceil(fine / merged) == coarse:
        shares = (torch.arange(fine) // merged == torch.arange(coarse)[:, None]).double()
    else:
        edges = torch.arange(coarse + 1, dtype=torch.float64) * fine / coarse
        low, high = torch.arange(fine, dtype=torch.float64), torch.arange(1, fine + 1, dtype=torch.float64)
        shares = (torch.minimum(edges[1:, None], high) - torch.maximum(edges[:-1, None], low)).clamp(min=0)
    return shares / shares.sum(1, keepdim=True)


def finest(shapes: Iterable[Shape]) -> Shape:
    """The finest grid, along each dimension."""
    return tuple(map(max, zip(*shapes, strict=True)))


def added_up(fields: Sequence[Tensor]) -> Tensor:
    """The sum of fields (N, *shape) of several grids, on the finest of them."""
    shape = finest(tuple(field.shape[1:]) for field in fields)
    return torch.stack([stretched(field, shape) for field in fields]).sum(0)


class KnownGrids:
    """Which grid a number of tokens lies on.

    Args:
        maps: the spatial shapes of what the model's convolutions gave: of an image's (rows, columns), or of a video's
            (time, rows, columns) or, frame by frame, (rows, columns).
        frames: of a video how many; None of an image.
    """

    def __init__(self, maps: Iterable[Shape], frames: int | None = None) -> None:
        self.is_video = frames is not None
        shapes = [shape if len(shape) == 3 or frames is None else (frames, *shape) for shape in maps]
        self.shapes = [shape for shape in shapes if len(shape) == 2 + self.is_video]

    def grid_of(self, tokens: int) -> Shape | None:
        """The grid with so many places; None if there is none."""
        merged = (_merged(shape, times) for times in range(7) for shape in reversed(self.shapes))
        return next((shape for shapes in merged for shape in shapes if prod(shape) == tokens), None)


def _merged(shape: Shape, times: int) -> list[Shape]:
    """The grid after so many times two rows and columns were made one, padded or not."""
    *time, rows, columns = shape
    stride = 2**times
    padded = (*time, ceil(rows / stride), ceil(columns / stride))
    return [padded, (*time, rows // stride, columns // stride)]
