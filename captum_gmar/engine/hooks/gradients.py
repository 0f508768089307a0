"""Gradients of the explained outputs."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def gradients(
    selected: Tensor, tensors: Sequence[Any], retain_graph: bool = False, allow_unused: bool = False
) -> tuple[Tensor, ...]:
    """Compute gradients of the explained outputs (N,) with respect to tensors or edges of the graph."""
    # Examples are independent, so the sum has their gradients with fewer operations.
    return torch.autograd.grad(selected.sum(), tensors, retain_graph=retain_graph or None, allow_unused=allow_unused)
