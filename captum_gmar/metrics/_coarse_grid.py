"""A coarse grid over the image, whose corrections cross it in one step.

Letters in shapes: K problems, C channels, M removed patches of all problems, B line pixels of a patch, E patches of one
kind, G cells of the coarse grid.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from captum_gmar.metrics._frame import Kind

_CELLS = 20  # along each axis


class CoarseGrid:
    """The system of the line pixels with one unknown for each cell.

    A correction is the same at the corners of all patches of a cell, and goes on linearly from corner to corner.

    Args:
        kinds: of patches in all problems.
        problem: (M,) of K.
        position: (M,) of the patches of an image.
        shape: K, rows and columns of patches.
        channels: C.
    """

    def __init__(
        self, kinds: Sequence[Kind], problem: Tensor, position: Tensor, shape: Sequence[int], channels: int
    ) -> None:
        problems = shape[0]
        cell, cells = _cells(problem, position, *shape)
        none = problems * cells
        number = torch.cat([problem * cells + cell, cell.new_tensor([none])])  # (M + 1,) of K * G
        self.shape = channels, problems, cells
        matrix = _matrix(kinds, number, torch.cat([cell, cell.new_tensor([cells])]), self.shape)
        self.inverse = torch.cholesky_inverse(torch.linalg.cholesky(matrix))  # (K, G, G)
        inner = kinds[0].frame
        self.slopes = inner.corners[: len(inner.line), :3].contiguous()  # (B, 3)
        corners = number.new_full((len(number), 3), none)
        for kind in kinds:
            if kind.removed:
                is_there = kind.frame.corners.any(0)  # where the image ends, a line keeps its own corner's value
                first = kind.corners[:, :1]
                corners[first[:, 0]] = number[kind.corners.where(is_there, first)[:, :3]]
        self.corners = corners.flatten()  # ((M + 1) * 3,) of K * G

    def correct(self, residual: Tensor) -> Tensor:
        """(C, M + 1, B)"""
        channels, problems, cells = self.shape
        sums = residual.new_zeros(channels, problems * cells + 1)
        sums.index_add_(1, self.corners, (residual @ self.slopes).flatten(1))
        corrections = self.inverse @ sums[:, :-1].view(self.shape).permute(1, 2, 0)  # (K, G, C)
        sums[:, :-1] = corrections.permute(2, 0, 1).flatten(1)
        sums[:, -1] = 0
        return sums.index_select(1, self.corners).view(channels, -1, 3) @ self.slopes.T


def _cells(problem: Tensor, position: Tensor, problems: int, rows: int, columns: int) -> tuple[Tensor, int]:
    """The cells (M,) of removed patches, and how many there are at most; those without are not counted."""
    side = -(-max(rows, columns) // _CELLS)  # of a cell, in patches
    across = -(-columns // side)
    cell = position // columns // side * across + position % columns // side
    used = cell.new_zeros(problems, -(-rows // side) * across)
    used[problem, cell] = 1
    return (used.cumsum(1) - 1)[problem, cell], int(used.sum(1).max())


def _matrix(kinds: Sequence[Kind], number: Tensor, cell: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """(K, G, G), of the cells (M + 1,) and their numbers in all problems."""
    _, problems, cells = shape
    matrix = kinds[0].matrix.new_zeros(problems * cells + 1, cells + 1)
    for kind in kinds:
        slopes = kind.frame.corners[-len(kind.matrix) :]
        entries = number[kind.corners][:, :, None] * (cells + 1) + cell[kind.corners][:, None]  # (E, 4, 4)
        between = slopes.T @ kind.matrix @ slopes
        matrix.view(-1).index_add_(0, entries.flatten(), between.flatten().repeat(len(entries)))
    matrix = matrix[:-1, :-1].reshape(problems, cells, cells)
    matrix.diagonal(dim1=1, dim2=2)[matrix.diagonal(dim1=1, dim2=2) == 0] = 1  # where other problems have more cells
    return matrix
