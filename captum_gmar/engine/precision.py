"""The precision in which sums are taken."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def wide(tensor: Tensor) -> Tensor:
    """The tensor in single precision at least, for sums that half precision would spoil."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def without_autocast(device_type: str) -> AbstractContextManager[object]:
    """Within the block, numbers keep their precision; where they do anyway there is nothing to enter."""
    return torch.autocast(device_type, enabled=False) if torch.is_autocast_enabled(device_type) else nullcontext()
