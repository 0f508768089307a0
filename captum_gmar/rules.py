"""What each method makes of one attention layer.

A rule takes the relevance of every token above a layer and returns it below that layer. It sees the layer as blocks of
query rows, so that no T×T matrix has to exist as a whole, and it may go over the blocks more than once.

Letters in shapes: N examples, H heads, T tokens, R query rows of a block.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor


class Block(NamedTuple):
    """Some query rows of one layer. The tensors are scratch memory: use them before asking for the next block."""

    rows: slice  # of the T query tokens
    attention: Tensor  # (N, H, R, T) probabilities after softmax
    gradient: Tensor  # (N, H, R, T) of the target with respect to the attention


class Step(NamedTuple):
    """What a rule makes of one layer."""

    relevance: Tensor  # (N, T) below the layer
    importance: Tensor  # (N, H) of the heads, not normalised


class Rule(Protocol):
    def __call__(self, relevance: Tensor, layer: Iterable[Block]) -> Step: ...


NORMS = {"l1": 1, "l2": 2}


@dataclass(frozen=True)
class GMAR:
    r"""Gradient-driven multi-head attention rollout (Jo, Jang and Park, ICIP 2025).

    With head importance :math:`s_h = \|G_h\|` (the entrywise L1 or L2 norm) and :math:`w = s / \sum_h s_h`

    .. math:: r \leftarrow r \cdot \frac{\sum_h w_h A_h + \alpha I}{1 + \alpha}

    The weights are known only after the last block, so each head's row :math:`r A_h` is summed apart.
    """

    norm: str = "l1"
    residual: float = 1.0

    def __post_init__(self) -> None:
        if self.norm not in NORMS:
            raise ValueError(f"norm must be one of {sorted(NORMS)}. Got {self.norm!r} instead.")
        check_residual(self.residual)

    def __call__(self, relevance: Tensor, layer: Iterable[Block]) -> Step:
        norms, rows = [], []
        for block in layer:
            norms.append(torch.linalg.vector_norm(block.gradient, NORMS[self.norm], dim=(-2, -1)))
            rows.append(relevance[:, None, None, block.rows] @ block.attention)  # (N, H, 1, T)
        importance = torch.linalg.vector_norm(torch.stack(norms), NORMS[self.norm], dim=0)  # (N, H)
        fused = head_weights(importance)[:, None] @ torch.stack(rows).sum(0).squeeze(-2)  # (N, 1, T)
        return Step(add_residual(fused.squeeze(-2), relevance, self.residual), importance)


def head_weights(importance: Tensor) -> Tensor:
    """Importance (..., H) divided by its sum over the heads; 1/H for every head where all are zero."""
    total = importance.sum(-1, keepdim=True)
    return torch.where(total > 0, importance / total, 1 / importance.shape[-1])


def add_residual(fused: Tensor, relevance: Tensor, residual: float) -> Tensor:
    """The row r·(Ā + αI)/(1 + α), of the rows r·Ā and r."""
    return (fused + residual * relevance) / (1 + residual)


def check_residual(residual: float) -> None:
    if not isinstance(residual, int | float) or not 0 <= residual < float("inf"):
        raise ValueError(f"residual must be a finite number, zero or more. Got {residual!r} instead.")
