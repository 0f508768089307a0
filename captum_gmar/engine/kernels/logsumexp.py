"""What torch's fused attention keeps for its own backward: log Σ exp of the scores of each query.

With it attention can be had key by key, without going over the keys of each query first. Torch does not promise that it
is there: it is taken from the operations that are known to have it, and tested on the user's device at first use, for
each precision and head dimension. Where it is not, nothing but time is lost.

Letters in shapes: N examples, H heads, T tokens, D head dimension.
"""

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

FLASH = "ScaledDotProductFlashAttentionBackward0", "ScaledDotProductFlashAttentionForCpuBackward0"
LARGEST_ERROR = 1e-3  # of a sum itself; half precision is exact in products, which add up in single precision


def attention_and_log_sums(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scale: float | None
) -> tuple[Tensor, Tensor | None]:
    """``F.scaled_dot_product_attention`` without gradient, and log Σ exp of each query's scores (N, H, T) if it tells
    them, as it may on devices other than the CPU."""
    if query.device.type == "cpu" or mask is not None:
        return F.scaled_dot_product_attention(query, key, value, mask, scale=scale), None
    with torch.enable_grad(), saved_tensors_hooks(lambda tensor: tensor, lambda tensor: tensor):
        differentiable = query.detach().requires_grad_()
        attended = F.scaled_dot_product_attention(differentiable, key.detach(), value.detach(), scale=scale)
        sums = log_sums(attended, query)
    return attended.detach(), sums


def log_sums(attended: Tensor, query: Tensor) -> Tensor | None:
    """log Σ exp of the scores of each query (N, H, T, D), (N, H, T), of what unmasked attention gave; None if torch did
    not keep them."""
    sums = _kept(attended, query)
    return sums if sums is not None and _is_right(query.device, query.dtype, query.shape[-1]) else None


def _kept(attended: Tensor, query: Tensor) -> Tensor | None:
    node = attended.grad_fn
    sums = getattr(node, "_saved_logsumexp", None) if type(node).__name__ in FLASH else None
    return sums.contiguous() if isinstance(sums, Tensor) and sums.shape == query.shape[:-1] else None


@cache
def _is_right(device: torch.device, precision: torch.dtype, size: int) -> bool:
    """Whether what was kept of a random layer is what it is taken for."""
    random = torch.Generator().manual_seed(0)
    query, key, value = (
        torch.randn(2, 33, 2, size, generator=random).transpose(1, 2).to(device, precision) for _ in range(3)
    )
    with torch.enable_grad(), saved_tensors_hooks(lambda tensor: tensor, lambda tensor: tensor):
        sums = _kept(F.scaled_dot_product_attention(query.requires_grad_(), key, value), query)
    exact = (query.detach().cpu().double() @ key.cpu().double().mT * size**-0.5).logsumexp(-1)
    return sums is not None and bool(((sums.cpu() - exact).abs() < LARGEST_ERROR).all())
