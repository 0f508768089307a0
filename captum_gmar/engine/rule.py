"""What a rule is, and the algebra that rules are written in.

A :class:`Rule` is applied on the way back, last layer first, to a layer's attention A and gradient G. It takes the
relevance of every token above the layer and returns it below. A :class:`Sweep` is applied afterwards, to the attention
of all layers at once. Both see a layer as blocks of query rows, so that no T×T matrix has to exist as a whole, and may
go over the blocks more than once.

Letters in shapes: N examples, L layers, H heads, T tokens, R query rows of a block. In formulas: r the row of
relevance, which begins at the start tokens, often CLS; w the weights of the heads, which sum to 1.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import ClassVar, NamedTuple, Protocol

import torch
from torch import Tensor


class Block(Protocol):
    """Some query rows of one layer. The tensors are scratch memory: use them before asking for the next block."""

    @property
    def rows(self) -> slice:
        """Of the T query tokens."""

    @property
    def attention(self) -> Tensor:
        """A (N, H, R, T), probabilities after softmax."""

    @property
    def gradient(self) -> Tensor:
        """G (N, H, R, T), of the target with respect to the attention. A sweep has none."""

    @property
    def spare(self) -> Tensor:
        """Memory (N, H, R, T) for what is made of the gradient, or of both once the attention has been read: to read it
        writes here. A sweep has none."""


class Blocks(Protocol):
    """A layer, or some of its heads."""

    def __iter__(self) -> Iterator[Block]: ...

    def heads_apart(self) -> Iterable["Blocks"]:
        """Some heads after the others (N, h, R, T): quicker, for what is found of each head by itself."""

    def keep_first(self, queries: int) -> None:
        """Leaves out all query rows but the first: those that give nothing."""


class Step(NamedTuple):
    """What a rule makes of one layer."""

    relevance: Tensor  # (N, T) below the layer
    importance: Tensor | None = None  # (N, H) of the heads, not normalised; None from rules that do not weigh heads


class Rule(Protocol):
    """What a method makes of a layer on the way back."""

    layerwise: ClassVar[bool]  # what it makes of a layer is that layer's own, and relevance is the mean of the layers

    def __call__(self, relevance: Tensor, layer: Blocks) -> Step:
        """Relevance (N, T) below the layer, of that above it."""


Importance = Sequence[Tensor]  # (N, H) of each layer


class Sweep(Protocol):
    """What a method makes of all layers at once, after the way back if there is one."""

    def __call__(self, relevance: Tensor, layers: Sequence[Blocks], importance: Importance | None) -> Tensor:
        """Relevance (N, T), of the start tokens' (N, T), and the heads' importance if a rule found it before."""


def head_weights(importance: Tensor) -> Tensor:
    """Importance (..., H) divided by its sum over the heads; 1/H for every head where all are zero."""
    total = importance.sum(-1, keepdim=True)
    return torch.where(total > 0, importance / total, 1 / importance.shape[-1])


def positive(block: Block) -> Tensor:
    r""":math:`A \odot G^+`, which is :math:`(A \odot G)^+` because A is not negative."""
    return product(block).clamp_(min=0)


def product(block: Block) -> Tensor:
    r""":math:`A \odot G`; both are read before it takes the block's memory."""
    return torch.mul(block.attention, block.gradient, out=block.spare)


def positive_gradient(block: Block) -> Tensor:
    r""":math:`G^+`, in the block's spare memory."""
    return torch.clamp(block.gradient, min=0, out=block.spare)


def head_rows(relevance: Tensor, block: Block, matrix: Tensor) -> Tensor:
    """Each head's r·M over the block's rows: (N, H, T), of M (N, H, R, T)."""
    return (relevance[:, None, None, block.rows] @ matrix).squeeze(-2)


def fuse_rows(by_head: Tensor, weights: Tensor) -> Tensor:
    """(N, H, T) → (N, T)"""
    return (weights[:, None] @ by_head).squeeze(-2)


def fuse(matrices: Tensor, weights: Tensor) -> Tensor:
    """The heads' weighted sum: (N, H, R, T) → (N, R, T)"""
    return (weights[:, None] @ matrices.flatten(2)).view(len(matrices), *matrices.shape[2:])


def row_times(relevance: Tensor, rows: slice, matrix: Tensor) -> Tensor:
    """r·M over some rows: (N, T), of M (N, R, T)."""
    return (relevance[:, None, rows] @ matrix).squeeze(-2)


def normalised_row(relevance: Tensor, fused: Iterable[tuple[slice, Tensor]], residual: float) -> Tensor:
    """r·rownorm(Ā + αI), of rows of Ā (N, R, T) with their places. A row of zeros passes nothing on."""
    shares, parts = torch.zeros_like(relevance), []
    for rows, matrix in fused:
        total = matrix.sum(-1) + residual  # (N, R)
        shares[:, rows] = torch.where(total > 0, relevance[:, rows] / total, 0)
        parts.append(row_times(shares, rows, matrix))
    return sum_up(parts) + residual * shares


def mean_row(relevance: Tensor, layer: Blocks, matrix: Callable[[Block], Tensor]) -> Tensor:
    """r·M (N, T), of the heads' mean M of what ``matrix`` makes of blocks (N, H, R, T)."""
    (rows,) = by_head(layer, lambda heads: (sum_up([head_rows(relevance, block, matrix(block)) for block in heads]),))
    return rows.mean(1)


def evenly(relevance: Tensor) -> Tensor:
    """1/T for every token."""
    return torch.full_like(relevance, 1 / relevance.shape[-1])


def by_head(layer: Blocks, look: Callable[[Blocks], tuple[Tensor, ...]]) -> list[Tensor]:
    """What ``look`` gives for some heads, (N, h, ...) each, for all heads (N, H, ...)."""
    parts = zip(*map(look, layer.heads_apart()), strict=True)
    return [torch.cat(of_heads, 1) for of_heads in parts]


def leading(counts: Tensor) -> int:
    """How many tokens there are up to the last that counts for any example (N, T), one at least."""
    places = counts.any(0).nonzero()
    return int(places[-1]) + 1 if len(places) else 1


def sum_up(parts: list[Tensor]) -> Tensor:
    """The sum of tensors of one shape."""
    return parts[0] if len(parts) == 1 else torch.stack(parts).sum(0)


def check_choice(name: str, value: str, choices: Collection[str]) -> None:
    """
    Raises:
        ValueError: if the option's value is none of the choices.
    """
    if value not in choices:
        raise ValueError(f"{name} must be one of {list(choices)}. Got {value!r} instead.")


def check_residual(residual: float) -> None:
    """
    Raises:
        ValueError: if it is no finite number, zero or more.
    """
    if not isinstance(residual, int | float) or not 0 <= residual < float("inf"):
        raise ValueError(f"residual must be a finite number, zero or more. Got {residual!r} instead.")
