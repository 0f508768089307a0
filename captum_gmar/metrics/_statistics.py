"""Rank correlation of maps, and intervals of means."""

import math

import torch
from torch import Tensor

FEWEST = 10  # examples that an interval or a verdict is drawn from: of fewer it would promise too much
ERRORS = 1.96  # standard errors on either side hold 95 % of a normal distribution


def spearman(a: Tensor, b: Tensor) -> Tensor:
    """Spearman's rank correlation of the rows of two tensors (N, P), (N,).

    Values that are the same share the mean of their ranks. Exactly 1 where both rows rank alike; 0 where one of
    them, but not the other, has the same value everywhere.
    """
    ranks = average_ranks(a), average_ranks(b)
    x, y = (torch.nn.functional.normalize(rank - rank.mean(1, keepdim=True), dim=1) for rank in ranks)
    return torch.where((ranks[0] == ranks[1]).all(1), 1, (x * y).sum(1).clamp(-1, 1))


def average_ranks(values: Tensor) -> Tensor:
    """The rank of each value in its row (N, P), from 0; those that are the same get the mean of their ranks."""
    ordered = values.sort(1).values
    below = torch.searchsorted(ordered, values.contiguous())
    not_above = torch.searchsorted(ordered, values.contiguous(), right=True)
    return (below + not_above - 1).to(values.dtype) / 2


def margin(values: Tensor, dim: int = -1) -> Tensor:
    """Half the width of the 95 % interval of the mean of independent values, along a dimension; nan for one value.

    It is too narrow for a handful of them.

    >>> from torch import tensor
    >>> round(float(margin(tensor([0.0, 1.0, 2.0, 3.0]))), 3)
    1.265
    """
    return ERRORS * values.std(dim) / math.sqrt(values.shape[dim])
