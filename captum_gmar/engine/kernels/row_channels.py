"""A row of relevance on its way through fused attention: as the gradient of channels that the value has not.

(r A)_j is the gradient of a channel of the value that is zero, whose output has the gradient r. In half precision r
takes two channels, a high and a low part, in units of its largest number: else small ones would have few digits.

Letters in shapes: N examples, H heads, T tokens, D head dimension, E channels for the row.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from captum_gmar.engine.kernels.reduction import Heads, LayerGradient, Reading

_SMALLEST = torch.finfo(torch.float32).tiny  # of a unit, which must not be zero


def write_row(row: Tensor, channels: Tensor) -> Tensor | None:
    """Writes the row r (N, T) into channels of a gradient (N, T, H, E); gives its unit, if it has one."""
    if torch.finfo(channels.dtype).bits >= 32:
        channels[..., 0] = row[..., None]
        return None
    unit: Tensor = torch.linalg.vector_norm(row, math.inf).clamp_(min=_SMALLEST)
    high = (share := row / unit).to(channels.dtype)
    channels[..., 0] = high[..., None]
    channels[..., 1] = (share - high)[..., None]
    return unit


def read_row(channels: Tensor, unit: Tensor | None) -> Tensor:
    """r A (N, H, T) of the value's gradient there (N, H, T, E), in single precision at least."""
    return channels[..., 0].contiguous() if unit is None else channels[..., :2].sum(-1, dtype=unit.dtype) * unit


def is_row_of_attention(layer: LayerGradient, reading: Reading) -> bool:
    """Whether nothing but r A is to be read."""
    return reading._replace(row=None) == Reading(matrix="attention")


def read_by_value(layer: LayerGradient, reading: Reading) -> Heads:
    """r A by torch's own attention, forward and backward: of a value that is zero, in the shape of the model's."""
    assert reading.row is not None
    query, key = layer.query.detach(), layer.key.detach()
    with torch.enable_grad():
        value = torch.zeros_like(key).requires_grad_()
        output = F.scaled_dot_product_attention(query, key, value, layer.mask, scale=layer.scale)
    gradient = torch.zeros_like(output.transpose(1, 2))
    unit = write_row(reading.row, gradient)
    (of_value,) = torch.autograd.grad(output, value, gradient.transpose(1, 2))
    return Heads(read_row(of_value, unit))
