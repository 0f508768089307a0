"""Noisy linear imputation (ROAD) by conjugate gradients.

The solver eliminates the inside of each removed patch and solves for the B border pixels of each of P patches. The
preconditioner adds two solutions: each patch by itself, and all patches with one value each. A pixels are on a border
or next to it.
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from captum_gmar.metrics.removal import PixelRemoval, check_seed

__all__ = ["NoisyLinear"]

_TOLERANCE = 0.01  # largest error of a pixel in the inputs' units; the noise has this standard deviation
_LARGEST_PATCH, _MOST_PATCHES, _MAX_STEPS = 32, 1600, 10_000  # a side and patches: elimination costs their cubes


@dataclass(frozen=True)
class NoisyLinear(PixelRemoval):
    """Noisy linear imputation (ROAD), which hardly reveals which pixels were removed.

    Every removed pixel becomes the weighted mean of its neighbours, removed or not, plus normal noise. The four nearest
    neighbours have weight 1/6, the four at the corners 1/12; neighbours outside the image are left out. The noise is
    the same for all images of a size. If all patches are removed, pixels become the mean colour plus noise.

    Args:
        noise: standard deviation of the noise in the inputs' units. Default: 0.01
        seed: seed of the noise. Default: 0

    Raises:
        ValueError: if ``noise`` is negative, or ``seed`` is not an integer.

    References:
        Rong, Leemann, Borisov, Kasneci, Kasneci: A Consistent and Efficient Evaluation Strategy for Attribution
        Methods. ICML 2022, arXiv 2202.00449.
    """

    noise: float = 0.01
    seed: int = 0

    def __post_init__(self) -> None:
        if not isinstance(self.noise, int | float) or not 0 <= self.noise < math.inf:
            raise ValueError(f"noise must be a finite number, zero or more, but got {self.noise!r}.")
        check_seed(self.seed)

    @property
    def name(self) -> str:
        """Name with the noise."""
        return f"noisy linear imputation (noise {self.noise:g})"

    def replacement(self, inputs: Tensor, removed: Tensor) -> Tensor:
        """Return the imputed images (N, S, C, H, W), at least in single precision."""
        noise = torch.randn(inputs.shape[1:], generator=torch.Generator().manual_seed(self.seed)).to(inputs)
        images = inputs.to(torch.promote_types(inputs.dtype, torch.float32))
        return impute(images, removed, _TOLERANCE) + self.noise * noise.to(images)


@torch.no_grad()
def impute(images: Tensor, removed: Tensor, tolerance: float) -> Tensor:
    """Impute removed patches (N, S, rows, columns) of images (N, C, H, W), as (N, S, C, H, W)."""
    copies = images.repeat_interleave(removed.shape[1], 0)
    for axis in (2, 3):
        side = images.shape[axis] // removed.shape[axis]
        largest = max(size for size in range(1, _LARGEST_PATCH + 1) if side % size == 0)
        removed = removed.repeat_interleave(side // largest, axis)
    nothing_kept = removed.flatten(2).all(2).flatten()
    copies[nothing_kept] = copies[nothing_kept].mean((2, 3), keepdim=True)
    rows, columns = removed.shape[2:]
    patches = copies.view(*copies.shape[:2], rows, copies.shape[2] // rows, columns, -1).transpose(3, 4)
    unknown = removed.flatten(0, 1) & ~nothing_kept[:, None, None]
    patches.copy_(_solve(patches, unknown, tolerance).view(patches.shape))
    return copies.view(len(images), -1, *images.shape[1:])


def _solve(patches: Tensor, removed: Tensor, tolerance: float) -> Tensor:
    """Solve for removed patches (K, rows, columns) of patches (K, C, rows, columns, h, w), with steps per K and C."""
    grid, pixels, removed = removed.shape[1:], patches.flatten(4).flatten(2, 3), removed.flatten(1)[:, None, :, None]
    border, gather, *matrices = _constants(grid, patches.shape[4:])
    border, gather = border.to(patches.device), gather.to(patches.device)
    # Some devices lack float64, so the type changes before the device.
    matrix, patch_inverse, extension, coarse = (part.to(patches.dtype).to(patches.device) for part in matrices)

    def multiply(vector: Tensor) -> Tensor:
        padded = F.pad(vector.view(*vector.shape[:2], *grid, -1), (0, 0, 1, 1, 1, 1)).flatten(2)
        return padded.index_select(2, gather).view(*vector.shape[:3], -1) @ matrix * removed

    solution = pixels[..., border] * ~removed
    residual, missing = -multiply(solution), multiply(torch.ones_like(solution[:, :1]))  # missing: outside the images
    removed_pairs = (removed & removed.mT)[:, 0, : len(coarse), : len(coarse)]
    coarse = coarse.where(removed_pairs, torch.eye(len(coarse)).to(coarse))
    coarse_inverse = torch.cholesky_inverse(torch.linalg.cholesky(coarse))
    last_error, direction = residual.new_ones(()), torch.zeros_like(residual)
    for _ in range(_MAX_STEPS):
        preconditioned = residual @ patch_inverse
        if coarse_inverse.numel():
            preconditioned += (coarse_inverse @ residual.sum(3).mT).mT[..., None]
        error = (residual * preconditioned).sum((2, 3), keepdim=True)  # about the square, weighted by the matrix
        unsolved = error > (tolerance / 8) ** 2
        if not unsolved.any():
            break
        direction = preconditioned + torch.where(unsolved, error / last_error, 0) * direction
        change = multiply(direction) - missing * direction
        step = torch.where(unsolved, error / (direction * change).sum((2, 3), keepdim=True), 0)
        solution, residual, last_error = solution + step * direction, residual - step * change, error
    return torch.where(removed, solution @ extension, pixels)


@lru_cache(maxsize=16)
def _constants(grid: tuple[int, int], size: tuple[int, int]) -> tuple[Tensor, ...]:
    """Return constants of a grid, in this order.

    Indices of a border (B,) and of its surroundings in a padded grid (P * A,); the system matrix (A, B) and its inverse
    for one patch (B, B); a border's extension to its patch (B, h * w); a coarse matrix (P, P).
    """
    sides, inner = torch.tensor(size), _positions(*size)
    outer = _positions(size[0] + 2, size[1] + 2) - 1
    border = ((inner == 0) | (inner == sides - 1)).any(1).nonzero()[:, 0]
    outer = outer[((outer <= 0) | (outer >= sides - 1)).any(1)]
    owner = outer.div(sides, rounding_mode="floor")
    pixel = torch.searchsorted(border, outer % sides @ torch.tensor([size[1], 1]))
    gather = (_positions(*grid)[:, None] + 1 + owner) @ torch.tensor([grid[1] + 2, 1]) * len(border) + pixel
    inverse = torch.linalg.inv(torch.eye(len(inner)) - _neighbour_weights(inner, inner))[border]
    schur = torch.linalg.inv(inverse[:, border])
    matrix = torch.where((owner == 0).all(1, keepdim=True), schur[pixel], -_neighbour_weights(outer, inner[border]))
    patches = _positions(*grid) if math.prod(grid) <= _MOST_PATCHES else inner[:0]
    coarse = _neighbour_weights(patches, patches, *((2 * side - 1) / 6 for side in size))
    return border, gather.flatten(), matrix, inverse[:, border], schur @ inverse, coarse.sum(1).diag() - coarse


def _positions(rows: int, columns: int) -> Tensor:
    return torch.cartesian_prod(torch.arange(rows), torch.arange(columns))


def _neighbour_weights(a: Tensor, b: Tensor, horizontal: float = 1 / 6, vertical: float = 1 / 6) -> Tensor:
    """Return the weights of neighbours (len(a), len(b)), which are 1/12 at corners."""
    rows, columns = (a[:, None] - b).abs().clamp(max=2).unbind(2)
    return torch.tensor([[0, horizontal, 0], [vertical, 1 / 12, 0], [0, 0, 0]], dtype=torch.float64)[rows, columns]
