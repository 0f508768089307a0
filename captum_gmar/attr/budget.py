r"""Choice among maps by measurement, and a regression that proposes further maps.

A map is measured in a few cells. In each, a share of the patches, those that it ranks first, is removed or is all that
is kept. A cell compares maps with one another alone: for all of them share, side and fill are the same.

Letters in shapes: N examples, C maps, D cells, P patches.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from captum_gmar.attr.scores import shares

FILLS_IN_TURN = 2
EQUAL_GAINS = 1e-5  # differ by rounding alone; their unit is the range of a readout
NOISE_SHARES = (0.01, 0.1, 1.0, 10.0)  # of the prior's variance, of which the likeliest counts


class Cell(NamedTuple):
    """A way to test which patches a map ranks first."""

    share: float  # of the patches, the most relevant ones
    keeps: bool  # only they are kept, else only they are removed
    fill: int  # number of the fill


def make_cells(quarters: int) -> list[Cell]:
    """Return cells of the first quarter of the patches, of the first two and so on, on both sides; fills alternate."""
    places = [(place, side) for place in range(quarters) for side in (False, True)]
    return [Cell((place + 1) / 4, side, (place + side) % FILLS_IN_TURN) for place, side in places]


def removed_patches(maps: Tensor, cells: Sequence[Cell]) -> Tensor:
    """Return removed patches (N, C, D, P) of maps (N, C, P) in each cell. Of equal patches the first is relevant."""
    ranks = (-maps).argsort(dim=-1, stable=True).argsort(dim=-1)[:, :, None]  # 0 is the most relevant
    counts = torch.tensor([round(cell.share * maps.shape[-1]) for cell in cells])
    keeps = torch.tensor([cell.keeps for cell in cells])
    return (ranks < counts[:, None]) != keeps[:, None]


def gains(values: Tensor, cells: Sequence[Cell]) -> Tensor:
    """Return the gain (N, C): the values (N, C, D) that the relevant patches keep, minus those of the others."""
    signs = torch.tensor([1.0 if cell.keeps else -1.0 for cell in cells])
    return values @ signs.to(values.dtype)


def best_map(maps: Tensor, values: Tensor, cells: Sequence[Cell]) -> Tensor:
    """Return the map (N, P) with the largest gain; of those that rounding alone tells apart, the first."""
    gained = gains(values, cells)
    is_best = gained > gained.amax(1, keepdim=True) - EQUAL_GAINS
    return maps[torch.arange(len(maps)), is_best.int().argmax(1)]


def smooth_covariance(rows: int, columns: int) -> Tensor:
    r"""Return the prior covariance (P, P) of patches :math:`e^{-d^2 / 2}`, d their distance in patches."""
    places = torch.cartesian_prod(torch.arange(float(rows)), torch.arange(float(columns))).double()
    return torch.exp(-(torch.cdist(places, places, compute_mode="donot_use_mm_for_euclid_dist") ** 2) / 2)


def propose_map(maps: Tensor, values: Tensor, cells: Sequence[Cell], covariance: Tensor) -> Tensor:
    r"""Return the map (N, P) that the measured values (N, C, D) of the maps (N, C, P) make likeliest.

    The values of a cell are those of a sum over kept patches: :math:`y_{cd} = a_d + \sum_{j \in S_{cd}} \phi_j` and
    noise, where :math:`\phi = s R + \delta`. R is the best map so far, s what its gain says a unit of R is worth, and
    :math:`\delta` a Gaussian of the given covariance. The noise's share of the variance is the likeliest of a few.
    """
    best = best_map(maps, values, cells).double()
    slope = _slope(best, values, cells)
    kept = (~removed_patches(maps, cells)).double()  # (N, C, D, P)
    contrasts = _contrasts(maps.shape[1])
    design = (contrasts @ kept.flatten(2)).view(len(maps), -1, maps.shape[-1])  # (N, (C - 1) · D, P)
    residual = (contrasts @ values.double()).flatten(1) - slope * (design @ best[..., None])[..., 0]
    weighted = design @ covariance
    variances, directions = torch.linalg.eigh(weighted @ design.mT)
    projected = (directions.mT @ residual[..., None])[..., 0]
    solved = directions @ (projected / _likeliest_total(variances.clamp(min=0), projected))[..., None]
    proposed: Tensor = slope * best + (weighted.mT @ solved)[..., 0]
    return proposed


def _contrasts(maps: int) -> Tensor:
    """Return orthonormal contrasts (C - 1, C), which no number that all maps of a cell share can change."""
    basis: Tensor = torch.linalg.qr(torch.cat([torch.ones(maps, 1), torch.eye(maps)[:, 1:]], 1).double()).Q
    return basis[:, 1:].T


def _slope(best: Tensor, values: Tensor, cells: Sequence[Cell]) -> Tensor:
    """Return the gain (N, 1) of the best map by the relevance (N, P) that its own cells keep; zero at least."""
    kept = (~removed_patches(best[:, None], cells)).double() @ best[:, None, :, None]
    relevance = gains(kept[..., 0], cells)  # (N, 1)
    gain = gains(values.double(), cells).amax(1, keepdim=True).clamp(min=0)
    return torch.where(relevance > 0, gain / relevance, 0)


def _likeliest_total(variances: Tensor, projected: Tensor) -> Tensor:
    """Return the variances (N, M) with that noise added under which the projected residuals (N, M) are likeliest."""
    tiny = torch.finfo(variances.dtype).tiny
    totals = torch.stack([variances + share * variances.mean(1, keepdim=True) for share in NOISE_SHARES], 1)
    totals = totals.clamp(min=tiny**0.5)  # (N, noise shares, M)
    scale = (projected[:, None] ** 2 / totals).mean(-1).clamp(min=tiny)
    likelihood = -(scale.log() * totals.shape[-1] + totals.log().sum(-1))
    return totals[torch.arange(len(totals)), likelihood.argmax(1)]


def cells_of(forwards: int) -> list[Cell]:
    """Return the cells in which each map is measured, by a budget of forward passes."""
    return make_cells(1 if forwards < 24 else 2 if forwards < 48 else 3)


def choose_map(
    candidates: Tensor,
    forwards: int,
    grid: tuple[int, int],
    measure: Callable[[Tensor, Sequence[Cell]], Tensor],
    intact: Tensor,
) -> Tensor:
    """Return the map (N, P) that gains most, of the candidates (N, C, P) and of maps proposed by what is measured.

    The one-pass map comes first, and is returned where the forward passes compare no two maps. ``measure`` goes from
    removed patches (N, C, D, P) and D cells to readouts (N, C, D, Q); ``intact`` are those (N, Q) of the whole images.
    """
    cells = cells_of(forwards)
    affordable = forwards // len(cells)
    if affordable < 2:
        return candidates[:, 0]
    maps = candidates[:, :affordable]
    readouts = measure(removed_patches(maps, cells), cells)
    unit = _ranges(readouts[:, 0], intact)
    covariance = smooth_covariance(*grid)
    while maps.shape[1] < affordable:
        proposed = shares(propose_map(maps, _values(readouts, unit), cells, covariance))[:, None]
        maps = torch.cat([maps, proposed], 1)
        readouts = torch.cat([readouts, measure(removed_patches(proposed, cells), cells)], 1)
    return best_map(maps, _values(readouts, unit), cells)


def _ranges(readouts: Tensor, intact: Tensor) -> Tensor:
    """Return how far each readout goes (N, 1, 1, Q), over the cells (N, D, Q) of one map and the whole image (N, Q)."""
    low, high = torch.cat([readouts, intact[:, None]], 1).aminmax(dim=1)
    return torch.where(high > low, high - low, 1)[:, None, None]


def _values(readouts: Tensor, unit: Tensor) -> Tensor:
    """Return the sum (N, C, D) of the readouts, each in its unit."""
    return (readouts / unit).sum(-1)
