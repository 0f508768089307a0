"""Rules, sweeps, and the algebra that they are written in.

A :class:`Rule` runs in the backward pass, last layer first, on a layer's attention A and gradient G. It takes the
relevance of every token above the layer and returns it below. A :class:`Sweep` runs after that, on the attention of all
layers. Both read a layer as blocks of query rows, once or several times, so that no T×T matrix exists as a whole.

Letters in shapes: N examples, L layers, H heads, T tokens, R query rows of a block. In formulas: r the row of
relevance, which begins at the start tokens, often CLS; w the weights of the heads, which sum to 1.
"""

from abc import abstractmethod
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import partial
from typing import ClassVar, NamedTuple, Protocol, TypeAlias

import torch
from torch import Tensor

from captum_gmar.engine.kernels.precision import row_products
from captum_gmar.engine.kernels.reduction import Blocks, HeadSums, Reduction, read_blocks, sum_up

FuseHeads: TypeAlias = Callable[[Tensor], Iterable[tuple[slice, Iterable[tuple[slice, Tensor]]]]]


class Step(NamedTuple):
    """A rule's result for one layer."""

    relevance: Tensor  # (N, T) below the layer
    importance: Tensor | None = None  # (N, H) of the heads, not normalised; None from rules that do not weigh heads


class Rule(Protocol):
    """A method's formula for one layer in the backward pass."""

    layerwise: ClassVar[bool]  # whether each step is the layer's own, and relevance the mean of the layers

    def __call__(self, relevance: Tensor, layer: Blocks) -> Step:
        """Return relevance (N, T) below the layer, by that above it."""


class HeadRule(Rule):
    """A rule of the heads' reductions: ``take`` takes any implementation, a call of the rule reads blocks."""

    @abstractmethod
    def reduction(self, relevance: Tensor) -> Reduction:
        """Return the reduction of a layer, by the relevance (N, T) above it."""

    def step(self, relevance: Tensor, heads: HeadSums) -> Step:
        """Make a step of a reduction, if one is enough."""
        raise NotImplementedError

    def take(self, relevance: Tensor, read: Callable[[Reduction], HeadSums]) -> Step:
        """Return relevance (N, T) below a layer that answers reductions, by that above it."""
        return self.step(relevance, read(self.reduction(relevance)))

    def take_fused(self, relevance: Tensor, read: Callable[[Reduction], HeadSums], fuse_heads: FuseHeads) -> Step:
        """Take a large layer without the kernel, by Σ_h w_h (A ⊙ G)⁺ of some examples' rows (n, R, T) at a time."""
        raise NotImplementedError

    def __call__(self, relevance: Tensor, layer: Blocks) -> Step:
        return self.take(relevance, partial(read_blocks, layer))


Importance = Sequence[Tensor]  # (N, H) of each layer


class Sweep(Protocol):
    """A method's formula for all layers, after the backward pass if there is one."""

    def __call__(self, relevance: Tensor, layers: Sequence[Blocks], importance: Importance | None) -> Tensor:
        """Return relevance (N, T) by that of the start tokens (N, T), and the heads' importance if a rule found it."""


class HeadSweep(Sweep):
    """A sweep of the heads' reductions, of layers in which no mask hides all keys."""

    @property
    def goes_down(self) -> bool:
        """Order of layers: one after the other, last layer first."""
        return False

    @abstractmethod
    def is_linear(self, importance: Importance | None) -> bool:
        """Return whether fusing the heads' rows is the same as fusing their matrices."""

    @abstractmethod
    def take(
        self, relevance: Tensor, layers: Sequence[Callable[[Reduction], HeadSums]], importance: Importance | None
    ) -> Tensor:
        """Sweep layers that answer reductions."""


def head_weights(importance: Tensor) -> Tensor:
    """Divide importance (..., H) by its sum over the heads; 1/H for every head where all are zero."""
    return (importance / importance.sum(-1, keepdim=True)).nan_to_num(1 / importance.shape[-1])


def add_residual(fused: Tensor, relevance: Tensor, residual: float) -> Tensor:
    """Compute (r·Ā + αr) / (1 + α) by r·Ā (N, T), the row of a mean whose own rows sum to 1."""
    return torch.lerp(fused, relevance, residual / (1 + residual))


def fuse_rows(head_row: Tensor, weights: Tensor, relevance: Tensor | None = None, residual: float = 0) -> Tensor:
    """Sum the weighted heads, and ``residual`` times the relevance (N, T): (N, H, T) → (N, T)"""
    if relevance is None:
        return torch.bmm(weights.unsqueeze(1), head_row).squeeze(1)
    return torch.baddbmm(relevance.unsqueeze(1), weights.unsqueeze(1), head_row, beta=residual).squeeze(1)


def fuse(matrices: Tensor, weights: Tensor) -> Tensor:
    """Sum the weighted heads: (N, H, R, T) → (N, R, T)"""
    return row_products(weights[:, None], matrices.flatten(2)).view(len(matrices), *matrices.shape[2:])


def row_shares(relevance: Tensor, totals: Tensor, residual: float) -> Tensor:
    """Divide relevance (N, T) by the sums of its rows, (N, T) and the residual. A row of zeros passes nothing on."""
    if residual > 0:
        return relevance / (totals + residual)
    return torch.where(totals > 0, relevance / totals, 0)


def row_times(relevance: Tensor, rows: slice, matrix: Tensor) -> Tensor:
    """Compute r·M over some rows: (N, T), of M (N, R, T)."""
    return torch.bmm(relevance[:, None, rows], matrix)[:, 0]


def normalised_row(relevance: Tensor, fused: Iterable[tuple[slice, Tensor]], residual: float) -> Tensor:
    """Compute r·rownorm(Ā + αI), by rows of Ā (N, R, T) with their slices. A row of zeros passes nothing on."""
    shares, parts = torch.zeros_like(relevance), []
    for rows, matrix in fused:
        shares[:, rows] = row_shares(relevance[:, rows], matrix.sum(-1), residual)
        parts.append(row_times(shares, rows, matrix))
    return sum_up(parts) + residual * shares


def uniform_relevance(relevance: Tensor) -> Tensor:
    """Return 1/T for every token."""
    return torch.full_like(relevance, 1 / relevance.shape[-1])


def check_choice(name: str, value: str, choices: Collection[str]) -> None:
    """Check that an option is one of its choices."""
    if value not in choices:
        raise ValueError(f"{name} must be one of {list(choices)}, but got {value!r}.")


def check_residual(residual: float) -> None:
    """Check that a residual is a finite number, zero or more."""
    if not isinstance(residual, int | float) or not 0 <= residual < float("inf"):
        raise ValueError(f"residual must be a finite number, zero or more, but got {residual!r}.")
