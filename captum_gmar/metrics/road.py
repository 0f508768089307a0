"""Noisy linear imputation (ROAD): each removed pixel becomes the mean of its neighbours, with a little noise.

Conjugate gradients solve for the border pixels of removed patches (B of each of P patches); insides are eliminated. A
pixels lie on a border or around it. The preconditioner solves each patch alone, and all patches with one value each.
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from captum_gmar.metrics.removal import PixelRemoval, check_seed

__all__ = ["NoisyLinear"]

_TOLERANCE = 0.01  # largest error of a pixel, in units of the inputs: the deviation of the noise
_LARGEST_PATCH = 32  # larger patches are cut, since elimination costs the cube of the pixels
_MOST_PATCHES = 1600  # solved together, which costs the cube of their number
_MAX_STEPS = 10_000


@dataclass(frozen=True)
class NoisyLinear(PixelRemoval):
    """Noisy linear imputation, ROAD's removal, which leaves hardly a trace of where the removed pixels were.

    Every removed pixel becomes the weighted mean of its neighbours, removed or not: the four beside it with weight 1/6,
    the four at its corners with 1/12. Neighbours beyond the image's border are left out. This linear system is solved
    for each channel, and normal noise is added, the same for every image of a size. If nothing of an image is kept, its
    pixels become its mean colour, and noise.

    Args:
        noise: standard deviation of the noise, in units of the inputs. Default: 0.01
        seed: of the noise. Default: 0

    Raises:
        ValueError: if ``noise`` is negative, or ``seed`` not an integer.

    References:
        Rong, Leemann, Borisov, Kasneci, Kasneci: A Consistent and Efficient Evaluation Strategy for Attribution
        Methods. ICML 2022, arXiv 2202.00449.
    """

    noise: float = 0.01
    seed: int = 0

    def __post_init__(self) -> None:
        if not isinstance(self.noise, int | float) or not 0 <= self.noise < math.inf:
            raise ValueError(f"noise must be a finite number, zero or more. Got {self.noise!r} instead.")
        check_seed(self.seed)

    @property
    def name(self) -> str:
        """Name in reports and pictures."""
        return f"noisy linear imputation (noise {self.noise:g})"

    def replacement(self, inputs: Tensor, removed: Tensor) -> Tensor:
        """Return the imputed images (N, S, C, H, W), at least in single precision."""
        noise = torch.randn(inputs.shape[1:], generator=torch.Generator().manual_seed(self.seed)).to(inputs)
        images = inputs.to(torch.promote_types(inputs.dtype, torch.float32))
        return impute(images, removed, _TOLERANCE) + self.noise * noise.to(images)


@torch.no_grad()
def impute(images: Tensor, removed: Tensor, tolerance: float) -> Tensor:
    """Return images (N, C, H, W) as (N, S, C, H, W), with removed patches (N, S, rows, columns) solved for."""
    copies = images.repeat_interleave(removed.shape[1], 0)
    for axis in (2, 3):
        side = images.shape[axis] // removed.shape[axis]
        part = max(size for size in range(1, _LARGEST_PATCH + 1) if side % size == 0)
        removed = removed.repeat_interleave(side // part, axis)
    nothing_kept = removed.flatten(2).all(2).flatten()
    copies[nothing_kept] = copies[nothing_kept].mean((2, 3), keepdim=True)
    rows, columns = removed.shape[2:]
    patches = copies.view(*copies.shape[:2], rows, copies.shape[2] // rows, columns, -1).transpose(3, 4)
    unknown = removed.flatten(0, 1) & ~nothing_kept[:, None, None]
    patches.copy_(_solve(patches, unknown, tolerance).view(patches.shape))
    return copies.view(len(images), -1, *images.shape[1:])


def _solve(patches: Tensor, removed: Tensor, tolerance: float) -> Tensor:
    """Solve for removed ones (K, rows, columns) of patches (K, C, rows, columns, h, w), in steps of each K and C."""
    grid, pixels, removed = removed.shape[1:], patches.flatten(4).flatten(2, 3), removed.flatten(1)[:, None, :, None]
    border, read, *matrices = _constants(grid, patches.shape[4:])
    border, read = border.to(patches.device), read.to(patches.device)
    # The type first, as not every device has float64.
    matrix, alone, extension, between = (part.to(patches.dtype).to(patches.device) for part in matrices)

    def times(vector: Tensor) -> Tensor:
        around = F.pad(vector.view(*vector.shape[:2], *grid, -1), (0, 0, 1, 1, 1, 1)).flatten(2).index_select(2, read)
        return around.view(*vector.shape[:3], -1) @ matrix * removed

    solution = pixels[..., border] * ~removed
    residual, missing = -times(solution), times(torch.ones_like(solution[:, :1]))  # beyond the images' borders
    both = (removed & removed.mT)[:, 0, : len(between), : len(between)]
    together = torch.cholesky_inverse(torch.linalg.cholesky(between.where(both, torch.eye(len(between)).to(between))))
    before, direction = residual.new_ones(()), torch.zeros_like(residual)
    for _ in range(_MAX_STEPS):
        preconditioned = residual @ alone
        if together.numel():
            preconditioned += (together @ residual.sum(3).mT).mT[..., None]
        error = (residual * preconditioned).sum((2, 3), keepdim=True)  # about its square, weighted by the matrix
        unsolved = error > (tolerance / 8) ** 2
        if not unsolved.any():
            break
        direction = preconditioned + torch.where(unsolved, error / before, 0) * direction
        change = times(direction) - missing * direction
        step = torch.where(unsolved, error / (direction * change).sum((2, 3), keepdim=True), 0)
        solution, residual, before = solution + step * direction, residual - step * change, error
    return torch.where(removed, solution @ extension, pixels)


@lru_cache(maxsize=16)
def _constants(grid: tuple[int, int], size: tuple[int, int]) -> tuple[Tensor, ...]:
    """Return the border of a patch (B,); where to read it and the pixels around, in a grid with margins (P * A,); the
    matrix (A, B); its inverse for a patch alone; all of a patch for its border (B, h * w); and the matrix of patches.
    """
    sides, own = torch.tensor(size), _places(*size)
    around = _places(size[0] + 2, size[1] + 2) - 1
    border = ((own == 0) | (own == sides - 1)).any(1).nonzero()[:, 0]
    around = around[((around <= 0) | (around >= sides - 1)).any(1)]
    owner = around.div(sides, rounding_mode="floor")
    pixel = torch.searchsorted(border, around % sides @ torch.tensor([size[1], 1]))
    read = (_places(*grid)[:, None] + 1 + owner) @ torch.tensor([grid[1] + 2, 1]) * len(border) + pixel
    solved = torch.linalg.inv(torch.eye(len(own)) - _neighbour_weights(own, own))[border]
    alone = torch.linalg.inv(solved[:, border])
    matrix = torch.where((owner == 0).all(1, keepdim=True), alone[pixel], -_neighbour_weights(around, own[border]))
    places = _places(*grid) if math.prod(grid) <= _MOST_PATCHES else own[:0]
    between = _neighbour_weights(places, places, *((2 * side - 1) / 6 for side in size))
    return border, read.flatten(), matrix, solved[:, border], alone @ solved, between.sum(1).diag() - between


def _places(rows: int, columns: int) -> Tensor:
    return torch.cartesian_prod(torch.arange(rows), torch.arange(columns))


def _neighbour_weights(a: Tensor, b: Tensor, beside: float = 1 / 6, below: float = 1 / 6) -> Tensor:
    """Return the weights of neighbours (len(a), len(b)), which are 1/12 at corners."""
    rows, columns = (a[:, None] - b).abs().clamp(max=2).unbind(2)
    return torch.tensor([[0, beside, 0], [below, 1 / 12, 0], [0, 0, 0]], dtype=torch.float64)[rows, columns]
