"""How alike two maps rank their patches."""

import torch
from torch import Tensor


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
