"""Rank correlation and confidence intervals."""

import math

import torch
from torch import Tensor

FEWEST = 10  # examples: intervals and verdicts of fewer would promise too much
ERRORS = 1.96  # this many standard errors on either side hold 95 % of a normal distribution


def spearman(a: Tensor, b: Tensor) -> Tensor:
    """Compute Spearman's rank correlation (N,) of the rows of two tensors (N, P).

    Equal values share the mean of their ranks. The result is exactly 1 for rows with equal ranks, and 0 if only one of
    two rows is constant.
    """
    ranks = average_ranks(a), average_ranks(b)
    x, y = (torch.nn.functional.normalize(rank - rank.mean(1, keepdim=True), dim=1) for rank in ranks)
    return torch.where((ranks[0] == ranks[1]).all(1), 1, (x * y).sum(1).clamp(-1, 1))


def average_ranks(values: Tensor) -> Tensor:
    """Return each value's rank in its row (N, P), from 0; equal values get the mean of their ranks."""
    ordered = values.sort(1).values
    lower = torch.searchsorted(ordered, values.contiguous())
    upper = torch.searchsorted(ordered, values.contiguous(), right=True)
    return (lower + upper - 1).to(values.dtype) / 2


def margin(values: Tensor, dim: int = -1) -> Tensor:
    """Compute half the width of the mean's 95 % interval for independent values; NaN for one value.

    The normal approximation is too narrow for a handful of values.

    >>> from torch import tensor
    >>> round(float(margin(tensor([0.0, 1.0, 2.0, 3.0]))), 3)
    1.265
    """
    return ERRORS * values.std(dim) / math.sqrt(values.shape[dim])
