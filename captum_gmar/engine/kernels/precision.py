"""The precision in which sums are taken."""

from contextlib import AbstractContextManager, nullcontext
from functools import cache

import torch
from torch import Tensor


def widen(tensor: Tensor) -> Tensor:
    """Return the tensor in single precision at least, for sums that half precision would spoil."""
    return tensor.to(sum_dtype(tensor.dtype))


def sum_dtype(precision: torch.dtype) -> torch.dtype:
    """Return the precision in which numbers of a precision are summed: single at least."""
    return torch.promote_types(precision, torch.float32)


def block_dtype(tensor: Tensor) -> torch.dtype:
    """Return the precision of attention and its gradient in blocks that gather no gradient.

    On devices that multiply bfloat16 in units of their own, and wait for memory more than for these, it stays as it is.
    float16 would lose the small products of the two.
    """
    keeps = tensor.dtype == torch.bfloat16 and tensor.device.type != "cpu"
    return tensor.dtype if keeps else sum_dtype(tensor.dtype)


def row_products(rows: Tensor, matrices: Tensor) -> Tensor:
    """Multiply rows (B, K, R), in single precision at least, by matrices (B, R, T) of any precision: (B, K, T)."""
    if matrices.dtype == rows.dtype:
        return torch.bmm(rows, matrices)
    high = rows.to(matrices.dtype)
    parts = torch.cat([high, (rows - high).to(matrices.dtype)], 1)  # of a half precision's digits each
    products = wide_product(parts, matrices).view(len(rows), 2, *rows.shape[1:2], -1)
    return products.sum(1).to(rows.dtype)


def wide_product(first: Tensor, second: Tensor) -> Tensor:
    """Multiply matrices (B, K, R) by (B, R, T), with sums and results in single precision at least."""
    if first.dtype.itemsize > 2:
        return torch.bmm(first, second)
    if _multiplies_widely(first.device, first.dtype):
        product: Tensor = torch.bmm(first, second, out_dtype=torch.float32)
        return product
    return torch.bmm(widen(first), widen(second))


@cache
def _multiplies_widely(device: torch.device, precision: torch.dtype) -> bool:
    """Return whether torch gives a product of this precision in single precision there, as newer ones do on CUDA."""
    ones = torch.full((1, 16, 16), 1 + 2**-5, dtype=precision, device=device)
    try:
        product = torch.bmm(ones, ones, out_dtype=torch.float32)
    except (RuntimeError, TypeError):  # of a device or a torch that does not
        return False
    return bool((product == 16 * (1 + 2**-5) ** 2).all())


def without_autocast(device_type: str) -> AbstractContextManager[object]:
    """Keep the precision of numbers within the block; there is nothing to enter where autocast is off."""
    return torch.autocast(device_type, enabled=False) if torch.is_autocast_enabled(device_type) else nullcontext()
