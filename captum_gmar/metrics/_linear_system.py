r"""Solves for removed pixels that are each the weighted mean of their neighbours.

The system of the removed pixels, :math:`\sum_j w_{ij} (x_i - x_j) = 0`, is symmetric and positive definite as long as
one pixel is kept. Patches are removed as a whole, so the inside of each is eliminated beforehand: once, as it is the
same for all. What is left, a system of the patches' first rows and columns, is solved by conjugate gradients, with the
inverse of its diagonal and that of a coarse grid over the image as the preconditioner.

Letters in shapes: K problems, each an image with some of its patches removed, C channels, P patches of an image,
M removed patches of all problems, B line pixels of a patch, F pixels of its frame, E patches of one kind.
"""

from collections.abc import Iterator
from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor

from captum_gmar.metrics._coarse_grid import CoarseGrid
from captum_gmar.metrics._frame import Kind, frame

_LARGEST_PATCH = 32  # larger ones are cut: what is eliminated costs the cube of their pixels
_PIXELS_AT_ONCE = {"cpu": 2**22}  # what caches hold
_PIXELS_AT_ONCE_ELSEWHERE = 2**26
_MAX_STEPS = 10_000


@torch.no_grad()
def impute(inputs: Tensor, removed: Tensor, noise: Tensor, tolerance: float) -> Tensor:
    """Images (N, C, H, W) with removed patches (N, S, rows, columns) solved for and noise (C, H, W) on these alone.

    Returns:
        Tensor (N, S, C, H, W), at least in single precision.
    """
    removed = _cut(removed, *inputs.shape[2:])
    images = inputs.to(torch.promote_types(inputs.dtype, torch.float32))
    imputed = images[:, None].repeat(1, removed.shape[1], 1, 1, 1)
    at_once = max(1, _PIXELS_AT_ONCE.get(inputs.device.type, _PIXELS_AT_ONCE_ELSEWHERE) // inputs[0].numel())
    for image, sets, results in zip(images, removed, imputed, strict=True):
        for some, result in zip(torch.split(sets, at_once), torch.split(results, at_once), strict=True):
            _impute(image, some, noise.to(image), tolerance, result)
    return imputed


def _cut(removed: Tensor, height: int, width: int) -> Tensor:
    """The same pixels as patches of at most ``_LARGEST_PATCH`` a side."""
    for axis, pixels in ((2, height), (3, width)):
        side = pixels // removed.shape[axis]
        part = max(size for size in range(1, _LARGEST_PATCH + 1) if side % size == 0)
        removed = removed.repeat_interleave(side // part, axis)
    return removed


def _impute(image: Tensor, removed: Tensor, noise: Tensor, tolerance: float, result: Tensor) -> None:
    """Writes the removed patches (K, rows, columns) of an image (C, H, W) into its copies (K, C, H, W)."""
    nothing_kept = removed.flatten(1).all(1)
    system = _System(image, removed & ~nothing_kept[:, None, None])
    system.write(system.solve(tolerance), noise, result)
    result[nothing_kept] = image.mean((1, 2))[:, None, None] + noise


class _System:
    """The system of the line pixels of all removed patches (K, rows, columns) of an image (C, H, W).

    Vectors are (C, M + 1, B), in waves: their last row stays zero and stands for all that is no unknown.
    """

    def __init__(self, image: Tensor, removed: Tensor) -> None:
        self.problems, self.rows, self.columns = removed.shape
        self.channels, height, width = image.shape
        self.size = height // self.rows, width // self.columns  # of a patch
        self.patches = self._in_patches(image)
        self.problem, self.position = removed.flatten(1).nonzero(as_tuple=True)  # (M,)
        self.owner = F.pad(self.problem, (0, 1))  # (M + 1,) whose row of a vector it is
        self.kinds = list(self._kinds(removed.flatten(1)))
        some = self.kinds[0].frame
        self.lines = _with_border(self.patches[:, :, some.line] @ some.waves)  # (C, P + 1, B)
        self.given = self._given()
        diagonals = [kind.matrix.diagonal().repeat(1, len(kind.problem)) for kind in self.kinds]
        self.inverse_diagonal = self._gathered(diagonals)[:, :-1].reciprocal()
        self.coarse = CoarseGrid(self.kinds, self.problem, self.position, removed.shape, self.channels)

    def _kinds(self, removed: Tensor) -> Iterator[Kind]:
        """Of removed patches (K, P): those inside the grid, in its last column, in its last row, and in both."""
        near = _near(self.rows, self.columns, removed.device)  # (P, 4)
        none, patches = len(self.problem), len(near)
        numbers = near.new_full((self.problems, patches + 1), none)
        numbers[self.problem, self.position] = torch.arange(none, device=removed.device)
        unknown = numbers[:, near]  # (K, P, 4) of M, and M for none
        known = near.where(unknown == none, patches)  # (K, P, 4) of P, and P for none
        beyond = near == patches
        for last_row, last_column, is_removed in product((False, True), repeat=3):
            patch_frame = frame(*self.size, last_row, last_column).to(self.patches)
            alike = (beyond[:, 2] == last_row) & (beyond[:, 1] == last_column) & (removed == is_removed)
            problem, position = (alike & (unknown < none).any(2)).nonzero(as_tuple=True)
            part = slice(0 if is_removed else len(patch_frame.line), None)  # of the frame
            whose, pixel = patch_frame.whose[part], patch_frame.pixel[part]
            corners, others = unknown[problem, position], known[problem, position]
            pixels = ((of[:, whose] * len(patch_frame.line) + pixel).flatten() for of in (corners, others))
            matrix = patch_frame.removed if is_removed else patch_frame.kept
            yield Kind(patch_frame, is_removed, matrix, problem, position, corners, next(pixels), next(pixels))

    def _given(self) -> Tensor:
        """What kept pixels contribute."""
        products = [-kind.times(self.lines, kind.known) for kind in self.kinds]
        for kind, total in zip(self.kinds, products, strict=True):
            if not kind.removed:
                total += (self.patches @ kind.frame.given).index_select(1, kind.position).flatten(1)
        return self._gathered(products)

    def _gathered(self, products: list[Tensor]) -> Tensor:
        """The vector of what there is for the frames of each kind (C, E * F)."""
        vector = self.lines.new_zeros(len(products[0]), len(self.problem) + 1, self.lines.shape[2])
        for kind, total in zip(self.kinds, products, strict=True):
            vector.flatten(1).index_add_(1, kind.unknown, total)
        vector[:, -1] = 0
        return vector

    def _apply(self, vector: Tensor) -> Tensor:
        """The matrix of the system times a vector."""
        return self._gathered([kind.times(vector, kind.unknown) for kind in self.kinds])

    def _precondition(self, residual: Tensor) -> Tensor:
        corrected = self.coarse.correct(residual)
        corrected[:, :-1].addcmul_(residual[:, :-1], self.inverse_diagonal)
        return corrected

    def solve(self, tolerance: float) -> Tensor:
        """Conjugate gradients. Each problem and channel goes its own steps: no batch changes a result."""
        residual = self.given.clone()
        solution, direction = torch.zeros_like(residual), torch.zeros_like(residual)
        before = residual.new_ones(self.channels, self.problems)
        for _ in range(_MAX_STEPS):
            preconditioned = self._precondition(residual)
            error = self._dot(residual, preconditioned)  # about its square, weighted by the system's matrix
            unsolved = error > (tolerance / 4) ** 2
            if not unsolved.any():
                break
            direction.mul_(self._spread(torch.where(unsolved, error / before, 0))).add_(preconditioned)
            change = self._apply(direction)
            step = self._spread(torch.where(unsolved, error / self._dot(direction, change), 0))
            solution.addcmul_(step, direction)
            residual.addcmul_(step, change, value=-1)
            before = error
        return solution

    def _dot(self, a: Tensor, b: Tensor) -> Tensor:
        """(C, K)"""
        products: Tensor = torch.linalg.vecdot(a, b)
        return products.new_zeros(self.channels, self.problems).index_add_(1, self.owner, products)

    def _spread(self, scalars: Tensor) -> Tensor:
        """(C, K) → (C, M + 1, 1)"""
        return scalars.index_select(1, self.owner)[:, :, None]

    def write(self, solution: Tensor, noise: Tensor, result: Tensor) -> None:
        """Writes removed patches, with noise (C, H, W), into images (K, C, H, W)."""
        height, width = self.size
        noise = self._in_patches(noise)
        pixels = result.view(*result.shape[:2], self.rows, height, self.columns, width)
        channel, y = (torch.arange(number, device=result.device) for number in (self.channels, height))
        for kind in self.kinds:
            if kind.removed:
                frames = solution.flatten(1).index_select(1, kind.unknown)
                frames += self.lines.flatten(1).index_select(1, kind.known)
                filled = frames.view(-1, len(kind.matrix)) @ kind.frame.extension
                filled += noise.index_select(1, kind.position).flatten(0, 1)
                row, column = kind.position // self.columns, kind.position % self.columns
                place = kind.problem[:, None], channel[:, None, None], row[:, None], y, column[:, None]  # (C, E, h)
                pixels[place] = filled.view(self.channels, -1, height, width)

    def _in_patches(self, image: Tensor) -> Tensor:
        """(C, H, W) → (C, P, h * w)"""
        height, width = self.size
        patches = image.reshape(self.channels, self.rows, height, self.columns, width).transpose(2, 3)
        return patches.flatten(3).flatten(1, 2)


def _near(rows: int, columns: int, device: torch.device) -> Tensor:
    """The patch itself, on the right, below, and at the corner between (P, 4); P for none."""
    grid = torch.full((rows + 1, columns + 1), rows * columns, device=device)
    grid[:-1, :-1] = torch.arange(rows * columns, device=device).view(rows, columns)
    return torch.stack([grid[:-1, :-1], grid[:-1, 1:], grid[1:, :-1], grid[1:, 1:]], 2).flatten(0, 1)


def _with_border(vector: Tensor) -> Tensor:
    """(C, M, B) → (C, M + 1, B)"""
    return torch.cat([vector, vector.new_zeros(len(vector), 1, vector.shape[2])], 1)
