"""The precision in which sums are taken."""

import torch
from torch import Tensor


def wide(tensor: Tensor) -> Tensor:
    """The tensor in single precision at least, for sums that half precision would spoil."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
