r"""Solves for removed pixels that are each the weighted mean of their neighbours.

The system of the removed pixels, :math:`\sum_j w_{ij} (x_i - x_j) = 0`, is symmetric and positive definite as long as
one pixel is kept. Patches are removed as a whole, and only the pixels on a patch's border have neighbours outside of
it, so the inside of each is eliminated beforehand: once, as it is the same for all. What is left is solved by conjugate
gradients, with the inverse of each patch and of a coarse grid over the image as the preconditioner.

Letters in shapes: K problems, each an image with some of its patches removed, C channels, P patches of an image,
M removed patches of all problems, B border pixels of a patch, O pixels around it, D directions to its neighbours and
itself, G cells of the coarse grid.
"""

from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

_LARGEST_PATCH = 32  # larger ones are cut: what is eliminated costs the cube of their pixels
_COARSE = 20  # cells of the coarse grid, along each axis
_PIXELS_AT_ONCE = {"cpu": 2**20}  # what caches hold
_PIXELS_AT_ONCE_ELSEWHERE = 2**26
_MAX_STEPS = 10_000


@torch.no_grad()
def impute(inputs: Tensor, removed: Tensor, tolerance: float) -> Tensor:
    """What removed patches (N, S, rows, columns) of images (N, C, H, W) become: (N, S, C, H, W), zero elsewhere."""
    removed = _cut(removed, *inputs.shape[2:])
    images = inputs.to(torch.promote_types(inputs.dtype, torch.float32))
    imputed = images.new_zeros(len(inputs), removed.shape[1], *inputs.shape[1:])
    at_once = max(1, _PIXELS_AT_ONCE.get(inputs.device.type, _PIXELS_AT_ONCE_ELSEWHERE) // inputs[0].numel())
    for image, sets, results in zip(images, removed, imputed, strict=True):
        for some, result in zip(torch.split(sets, at_once), torch.split(results, at_once), strict=True):
            _impute(image, some, tolerance, result)
    return imputed


def _cut(removed: Tensor, height: int, width: int) -> Tensor:
    """The same pixels as patches of at most ``_LARGEST_PATCH`` a side."""
    for axis, pixels in ((2, height), (3, width)):
        side = pixels // removed.shape[axis]
        part = max(size for size in range(1, _LARGEST_PATCH + 1) if side % size == 0)
        removed = removed.repeat_interleave(side // part, axis)
    return removed


def _impute(image: Tensor, removed: Tensor, tolerance: float, result: Tensor) -> None:
    """Writes what removed patches (K, rows, columns) of an image (C, H, W) become into (K, C, H, W)."""
    nothing_kept = removed.flatten(1).all(1)
    removed = removed & ~nothing_kept[:, None, None]
    rows, columns = removed.shape[1:]
    patches = _in_patches(image, rows, columns)  # (C, rows, columns, h, w)
    height, width = patches.shape[3:]
    patch = _patch(height, width).to(image)
    system = _System(patches.flatten(3).flatten(1, 2), removed, patch)
    border = system.solve(tolerance)  # (C, M, B)
    filled = border.new_empty(*border.shape[:2], height * width)
    filled[:, :, patch.border] = border
    filled[:, :, patch.inside] = border @ patch.extension.T
    where = system.problem, system.position // columns, system.position % columns
    filled = filled.view(*filled.shape[:2], height, width).transpose(0, 1)  # (M, C, h, w)
    _in_patches(result, rows, columns).movedim(1, 3)[where] = filled
    result[nothing_kept] = image.mean((1, 2))[:, None, None]


def _in_patches(images: Tensor, rows: int, columns: int) -> Tensor:
    """(..., H, W) → (..., rows, columns, h, w), a view if the images are contiguous"""
    *others, height, width = images.shape
    return images.reshape(*others, rows, height // rows, columns, width // columns).transpose(-3, -2)


class _Patch(NamedTuple):
    """A patch with its inside eliminated."""

    border: Tensor  # (B,) numbers of the pixels with neighbours outside
    inside: Tensor  # (I,) numbers of the others
    matrix: Tensor  # (B, B) of the border pixels among themselves, directly and through the inside
    inverse: Tensor  # (B, B)
    coupling: Tensor  # (O, B) weights between the pixels around and those on the border
    extension: Tensor  # (I, B) what each border pixel contributes to each inside
    direction: Tensor  # (O,) of D, in which the pixel around lies
    facing: Tensor  # (O,) of B, which border pixel of the neighbour it is

    def to(self, like: Tensor) -> "_Patch":
        return _Patch(*(t.to(like) if t.is_floating_point() else t.to(like.device) for t in self))


@lru_cache(maxsize=16)
def _patch(height: int, width: int) -> _Patch:
    pixels = torch.cartesian_prod(torch.arange(-1, height + 1), torch.arange(-1, width + 1))  # as row and column
    size = torch.tensor([height, width])
    within = ((pixels >= 0) & (pixels < size)).all(1)
    at_border = within & ((pixels == 0) | (pixels == size - 1)).any(1)
    border, inside, around = pixels[at_border], pixels[within & ~at_border], pixels[~within]
    extension = torch.linalg.solve(_identity(inside) - _weights(inside, inside), _weights(inside, border))
    matrix = _identity(border) - _weights(border, border) - _weights(border, inside) @ extension
    facing = (border == (around % size)[:, None]).all(2).int().argmax(1)
    return _Patch(
        border=border @ torch.tensor([width, 1]),
        inside=inside @ torch.tensor([width, 1]),
        matrix=matrix,
        inverse=matrix.inverse(),
        coupling=_weights(around, border),
        extension=extension,
        direction=(around.div(size, rounding_mode="floor") + 1) @ torch.tensor([3, 1]),
        facing=facing,
    )


def _weights(a: Tensor, b: Tensor) -> Tensor:
    """1/6 for pixels side by side, 1/12 for pixels corner to corner: (len(a), len(b))"""
    distance = (a[:, None] - b).abs().double()
    return torch.where(distance.amax(2) == 1, (3 - distance.sum(2)) / 12, 0)


def _identity(pixels: Tensor) -> Tensor:
    return torch.eye(len(pixels), dtype=torch.float64)


def _neighbours(rows: int, columns: int, device: torch.device) -> Tensor:
    """The patch in each direction (P, D), P for none."""
    patches = rows * columns
    grid = torch.full((rows + 2, columns + 2), patches, device=device)
    grid[1:-1, 1:-1] = torch.arange(patches, device=device).view(rows, columns)
    return grid.unfold(0, rows, 1).unfold(1, columns, 1).flatten(2).flatten(0, 1).T.contiguous()


class _System:
    """The system of the border pixels of all removed patches, for image patches (C, P, h * w).

    Vectors are (C, M + 1, B): their last row stays zero and stands for all that is no unknown.
    """

    def __init__(self, patches: Tensor, removed: Tensor, patch: _Patch) -> None:
        self.channels = len(patches)
        self.problems, rows, columns = removed.shape
        self.patch = patch
        self.problem, self.position = removed.flatten(1).nonzero(as_tuple=True)  # (M,)
        none = rows * columns
        near = _neighbours(rows, columns, removed.device)[self.position]  # (M, D) of P, and P for none
        numbers = near.new_full((self.problems, none + 1), len(near))
        numbers[self.problem, self.position] = torch.arange(len(near), device=removed.device)
        unknown = numbers[self.problem[:, None], near]  # (M, D) of M, and M for none
        self.around = self._pixels_around(unknown)
        beyond = (near == none)[:, patch.direction].to(patches)  # (M, O)
        self.missing = beyond @ patch.coupling  # (M, B) weight of what lies beyond the image
        known = near.where(unknown == len(near), none)
        self.given = self._coupled(_padded(patches[:, :, patch.border]), self._pixels_around(known))
        self.coarse = _Coarse(self, near, unknown, (rows, columns))

    def _pixels_around(self, patches: Tensor) -> Tensor:
        """(M, D) → (M * O,) which of all border pixels of all patches lie around each removed patch"""
        return (patches[:, self.patch.direction] * len(self.patch.border) + self.patch.facing).flatten()

    def _coupled(self, borders: Tensor, pixels: Tensor) -> Tensor:
        """What border pixels (C, ., B) contribute to the removed patches that they lie around, (C, M, B)."""
        around = borders.flatten(1).index_select(1, pixels).view(-1, len(self.patch.coupling))
        return (around @ self.patch.coupling).view(self.channels, -1, borders.shape[2])

    def _apply(self, vector: Tensor) -> Tensor:
        """The matrix of the system times a vector."""
        product = _matmul(vector, self.patch.matrix)
        product[:, :-1].sub_(self._coupled(vector, self.around)).addcmul_(self.missing, vector[:, :-1], value=-1)
        return product

    def _precondition(self, residual: Tensor) -> Tensor:
        corrected = _matmul(residual, self.patch.inverse)
        corrected[:, :-1].add_(self.coarse.correct(residual[:, :-1]))
        return corrected

    def solve(self, tolerance: float) -> Tensor:
        """Conjugate gradients (C, M, B). Each problem and channel goes its own steps: no batch changes a result."""
        residual = _padded(self.given)
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
        return solution[:, :-1]

    def _dot(self, a: Tensor, b: Tensor) -> Tensor:
        """(C, K)"""
        products: Tensor = torch.linalg.vecdot(a, b)[:, :-1]
        return products.new_zeros(self.channels, self.problems).index_add_(1, self.problem, products)

    def _spread(self, scalars: Tensor) -> Tensor:
        """(C, K) → (C, M + 1, 1)"""
        return _padded(scalars[:, self.problem, None])


class _Coarse:
    """The same system with one unknown for each cell of a coarse grid: corrections that cross the image in one step."""

    def __init__(self, system: _System, near: Tensor, unknown: Tensor, grid: tuple[int, int]) -> None:
        rows, columns = grid
        side = -(-max(grid) // _COARSE)  # of a cell, in patches
        down, across = -(-rows // side), -(-columns // side)
        number = torch.arange(rows * columns + 1, device=near.device)
        cell = (number // columns).clamp(max=rows - 1) // side * across + number % columns // side  # (P + 1,) of G
        self.shape = (system.channels, system.problems, down * across)
        own = cell[system.position]
        self.cell = system.problem * self.shape[2] + own  # (M,) of K * G
        coupling = system.patch.coupling
        weights = coupling.new_zeros(9).index_add_(0, system.patch.direction, coupling.sum(1))  # (D,) between patches
        matrix = coupling.new_zeros(self.shape[1] * self.shape[2], self.shape[2])
        matrix.index_put_((self.cell, own), (weights * (near < len(number) - 1)).sum(1), accumulate=True)
        matrix.index_put_((self.cell[:, None], cell[near]), -weights * (unknown < len(near)), accumulate=True)
        matrix = matrix.view(*self.shape[1:], -1)
        matrix.diagonal(dim1=1, dim2=2)[matrix.diagonal(dim1=1, dim2=2) == 0] = 1  # cells without removed patches
        self.inverse = torch.cholesky_inverse(torch.linalg.cholesky(matrix))

    def correct(self, residual: Tensor) -> Tensor:
        """(C, M, B) → (C, M, 1)"""
        channels, problems, cells = self.shape
        sums = residual.new_zeros(channels, problems * cells).index_add_(1, self.cell, residual.sum(2))
        corrections = self.inverse @ sums.view(self.shape).permute(1, 2, 0)  # (K, G, C)
        return corrections.permute(2, 0, 1).flatten(1)[:, self.cell, None]


def _matmul(borders: Tensor, matrix: Tensor) -> Tensor:
    """One multiplication for all channels and patches."""
    return (borders.flatten(0, 1) @ matrix).view_as(borders)


def _padded(vector: Tensor) -> Tensor:
    """(C, M, B) → (C, M + 1, B)"""
    return torch.cat([vector, vector.new_zeros(len(vector), 1, vector.shape[2])], 1)
