r"""A patch among its neighbours, with its inside eliminated.

A patch's first row and first column are its line pixels, the others its inside. The inside has neighbours only in the
patch's frame: its own line pixels, and those that follow on the right, below, and at the corner between. Where a patch
is removed, its inside follows from its frame, and what is left is a system of the line pixels alone.

Along each side of a patch, line pixels are given as sine waves, because a removed inside links no wave of a side to
another wave of the same side. So the diagonal says nearly all of how line pixels along one side depend on each other.

Letters in shapes: B line pixels of a patch, I pixels of its inside, F pixels of its frame; E patches of one kind, C
channels, P patches of an image, M removed patches of all problems.
"""

import math
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor


class Frame(NamedTuple):
    """Of a patch, with matrices in waves, which are zero for neighbours that are not there."""

    line: Tensor  # (B,) numbers of the patch's line pixels among its own
    waves: Tensor  # (B, B) from line pixels to waves, and back
    whose: Tensor  # (F,) line pixels: 0 for its own, 1 of the patch on the right, 2 below, 3 at the corner between
    pixel: Tensor  # (F,) of B, which line pixel of that patch it is
    removed: Tensor  # (F, F) of the frame, if the patch is removed: directly, and through its inside
    kept: Tensor  # (F - B, F - B) of the frame without its own pixels, if the patch is kept
    given: Tensor  # (h * w, F - B) what the patch's pixels contribute to those, if it is kept
    extension: Tensor  # (F, h * w) what pixels of the frame contribute to all of the patch's own, if it is removed
    corners: Tensor  # (F, 4) the frame as it goes on linearly from each of its corners, in the order of the patches

    def to(self, like: Tensor) -> "Frame":
        return Frame(*(t.to(like) if t.is_floating_point() else t.to(like.device) for t in self))


class Kind(NamedTuple):
    """The patches that have a removed one in their frame, as far as they are alike."""

    frame: Frame
    removed: bool
    matrix: Tensor  # (F, F), or (F - B, F - B) if they are kept
    problem: Tensor  # (E,)
    position: Tensor  # (E,) of P
    corners: Tensor  # (E, 4) of M, the patches whose corners are those of the frame; M for what is not removed
    unknown: Tensor  # (E * F,) of (M + 1) * B, which unknown each pixel of the frames is
    known: Tensor  # (E * F,) of (P + 1) * B, which line pixel of the image it is, if it is known

    def times(self, vector: Tensor, pixels: Tensor) -> Tensor:
        """The matrix times what a vector has in the frames (C, E * F)."""
        frames = vector.flatten(1).index_select(1, pixels).view(-1, len(self.matrix))
        return (frames @ self.matrix).view(len(vector), -1)


@lru_cache(maxsize=64)
def frame(height: int, width: int, last_row: bool, last_column: bool) -> Frame:
    """Of a patch of that size, which may lie in the last row or column of the grid."""
    around, inside = _around_and_inside(height, width)
    pixels = torch.cat([*around, inside])
    size, is_last = torch.tensor([height, width]), torch.tensor([last_row, last_column])
    there = ~((pixels == size) & is_last).any(1)
    weights = _edge_weights(pixels, pixels) * (there[:, None] & there & ~_follows(pixels, size))
    across, down, one = _sines(width - 1), _sines(height - 1), _sines(1)
    basis: Tensor = torch.block_diag(across, one, down, one, down, across, one, one)  # type: ignore[no-untyped-call]
    lines, border = len(around[0]), len(basis)

    matrix = weights.sum(1).diag() - weights
    inward = torch.linalg.solve(matrix[border:, border:], weights[border:, :border]).T  # (F, I)
    number = torch.cat([around[0], inside]) @ torch.tensor([width, 1])  # of its own pixels
    extension, given = weights.new_zeros(border, height * width), weights.new_zeros(height * width, border - lines)
    extension[:, number] = torch.cat([weights.new_ones(border).diag()[:, :lines], inward], 1)
    given[number] = torch.cat([weights[:lines], weights[border:]])[:, lines:border]
    which = torch.arange(lines)
    share = torch.where(is_last, 0, pixels[:border] / size).double()  # where the image ends, as at its own corner
    return Frame(
        line=number[:lines],
        waves=basis[:lines, :lines].contiguous(),
        whose=torch.repeat_interleave(torch.tensor([len(part) for part in around])),
        pixel=torch.cat([which, which[width - 1 :], which[:width], which[width - 1 : width]]),
        removed=basis @ (matrix[:border, :border] - inward @ weights[border:, :border]) @ basis,
        kept=basis[lines:, lines:] @ matrix[lines:border, lines:border] @ basis[lines:, lines:],
        given=given @ basis[lines:, lines:],
        extension=basis @ extension,
        corners=basis @ (_corners(share) * there[:border, None]),
    )


def _around_and_inside(height: int, width: int) -> tuple[list[Tensor], Tensor]:
    """Line pixels in the frame: the patch's own, on the right, below, and at the corner between; and its inside."""
    top, corner, left = _pixel_numbers(1, width - 1, x=1), _pixel_numbers(1, 1), _pixel_numbers(height - 1, 1, y=1)
    right, below = torch.tensor([0, width]), torch.tensor([height, 0])
    around = [torch.cat([top, corner, left]), torch.cat([corner, left]) + right]
    around += [torch.cat([top, corner]) + below, corner + right + below]
    return around, _pixel_numbers(height - 1, width - 1, y=1, x=1)


def _follows(pixels: Tensor, size: Tensor) -> Tensor:
    """Which links lie along the lines of the patches that follow, and count there."""
    beyond = pixels == size
    return (beyond[:, None] & beyond).any(2)


def _corners(share: Tensor) -> Tensor:
    """How much each of four corners counts (F, 4), of the share of the way (F, 2) down and to the right."""
    down, right = torch.stack([1 - share, share], 2).unbind(1)  # (F, 2)
    return (down[:, :, None] * right[:, None]).flatten(1)


def _pixel_numbers(height: int, width: int, y: int = 0, x: int = 0) -> Tensor:
    """As row and column (height * width, 2)."""
    return torch.cartesian_prod(torch.arange(y, y + height), torch.arange(x, x + width))


def _edge_weights(a: Tensor, b: Tensor) -> Tensor:
    """1/6 for pixels side by side, 1/12 for pixels corner to corner: (len(a), len(b))"""
    distance = (a[:, None] - b).abs().double()
    return torch.where(distance.amax(2) == 1, (3 - distance.sum(2)) / 12, 0)


def _sines(pixels: int) -> Tensor:
    """An orthonormal basis of sine waves that are zero on either side of so many pixels; its own inverse."""
    number = torch.arange(1, pixels + 1, dtype=torch.float64)
    return math.sqrt(2 / (pixels + 1)) * torch.sin(math.pi * number[:, None] * number / (pixels + 1))
