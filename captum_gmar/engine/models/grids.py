"""Grids over images (rows, columns) or videos (time, rows, columns), and resampling of fields on them.

A field has one number per grid position.
"""

from collections.abc import Iterable, Sequence
from math import ceil, prod
from typing import NamedTuple

import torch
from torch import Tensor

Shape = tuple[int, ...]


class FieldGrid(NamedTuple):
    """Even grid over some dimensions of the inputs."""

    shape: Shape  # (rows, columns) or (time, rows, columns)
    dims: Shape  # dimensions of the inputs

    @property
    def patches(self) -> int:
        """Number of grid positions."""
        return prod(self.shape)

    def spread_like(self, relevance: Tensor, inputs: Tensor) -> Tensor:
        """Distribute relevance (N, *shape) evenly over the inputs' numbers, preserving the sum."""
        shares = resample(relevance, tuple(inputs.shape[dim] for dim in self.dims))
        other_dims = [dim for dim in range(1, inputs.dim()) if dim not in self.dims]
        order = sorted(range(len(self.dims)), key=lambda index: self.dims[index])
        shares = shares.permute(0, *(index + 1 for index in order))
        for dim in other_dims:
            shares = shares.unsqueeze(dim)
        shares = shares / prod(inputs.shape[dim] for dim in other_dims)
        return shares.expand(inputs.shape).to(inputs.device, inputs.dtype).contiguous()

    def crop(self, attributions: Tensor) -> Tensor:
        """Return the attributions unchanged, since the grid covers all inputs."""
        return attributions


class PackedGrid(FieldGrid):
    """Grid of inputs (N, patches, numbers) that are cut into patches already."""

    def spread_like(self, relevance: Tensor, inputs: Tensor) -> Tensor:
        """Distribute relevance over each patch's numbers; later inputs get 0."""
        shares = inputs.new_zeros(inputs.shape)
        shares[:, : self.patches] = (relevance.flatten(1)[..., None] / inputs.shape[-1]).to(inputs)
        return shares


def resample(field: Tensor, shape: Shape) -> Tensor:
    """Resample a field (N, *coarse) to a finer grid (N, *shape), preserving sums."""
    for dim, size in enumerate(shape, 1):
        if field.shape[dim] != size:
            field = (field.movedim(dim, -1) @ overlap(field.shape[dim], size).to(field)).movedim(-1, dim)
    return field


def overlap(coarse: int, fine: int) -> Tensor:
    """Return the shares (coarse, fine) of each coarse position in fine ones; rows sum to 1.

    For an integral ratio, the last coarse position may have been padded; otherwise positions are spaced evenly.
    """
    ratio = ceil(fine / coarse)
    if ceil(fine / ratio) != coarse:
        return even_overlap(coarse, fine)
    shares = (torch.arange(fine) // ratio == torch.arange(coarse)[:, None]).double()
    return shares / shares.sum(1, keepdim=True)


def even_overlap(coarse: int, fine: int) -> Tensor:
    """Return the shares (coarse, fine) of evenly spaced coarse positions in fine ones; rows sum to 1."""
    edges = torch.arange(coarse + 1, dtype=torch.float64) * fine / coarse
    low = torch.arange(fine, dtype=torch.float64)
    shares = (torch.minimum(edges[1:, None], low + 1) - torch.maximum(edges[:-1, None], low)).clamp(min=0)
    return shares / shares.sum(1, keepdim=True)


def finest(shapes: Iterable[Shape]) -> Shape:
    """Return the maximal shape along each dimension."""
    return tuple(map(max, zip(*shapes, strict=True)))


def sum_fields(fields: Sequence[Tensor]) -> Tensor:
    """Sum fields (N, *shape) of several grids on the finest grid."""
    shape = finest(tuple(field.shape[1:]) for field in fields)
    return torch.stack([resample(field, shape) for field in fields]).sum(0)


class KnownGrids:
    """Grids of a model's convolutions, (rows, columns) or (time, rows, columns), to find that of a number of tokens."""

    def __init__(self, maps: Iterable[Shape], frames: int | None = None) -> None:
        self.is_video = frames is not None
        shapes = [shape if len(shape) == 3 or frames is None else (frames, *shape) for shape in maps]
        self.shapes = [shape for shape in shapes if len(shape) == 2 + self.is_video]

    def grid_of(self, tokens: int) -> Shape | None:
        """Return the grid of a number of tokens, or None."""
        candidates = (_merge_grid(shape, times) for times in range(7) for shape in reversed(self.shapes))
        return next((shape for shapes in candidates for shape in shapes if prod(shape) == tokens > 0), None)


def _merge_grid(shape: Shape, times: int) -> list[Shape]:
    """Return the grids after merging pairs of rows and columns a number of times, with and without padding."""
    *time, rows, columns = shape
    stride = 2**times
    padded = (*time, ceil(rows / stride), ceil(columns / stride))
    return [padded, (*time, rows // stride, columns // stride)]
