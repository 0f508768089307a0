"""Gradients of what is explained."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def gradients(
    selected: Tensor, tensors: Sequence[Any], goes_again: bool = False, allow_unused: bool = False
) -> tuple[Tensor, ...]:
    """Of what is explained (N,), with respect to tensors, or edges of its graph.

    Args:
        goes_again: whether the same graph is gone back once more, and so is kept.
        allow_unused: whether there may be none; then it is None.
    """
    # The sum has the same gradient as each example's number, of fewer operations.
    return torch.autograd.grad(selected.sum(), tensors, retain_graph=goes_again or None, allow_unused=allow_unused)
