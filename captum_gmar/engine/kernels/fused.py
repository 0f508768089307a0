"""Attention that is torch's own, forward and backward, beside which a listener reads the layer.

A tap behind the attention receives the gradient of its output before torch's backward does, for reductions of that
alone. The gradient of the value, which torch's backward returns, gives others by two identities (O = A V, δ the
gradient of O, r a row of relevance):

- Σ_i (A ⊙ G)_ij = v_j · ∂/∂v_j, the value times its gradient, because ∂/∂v_j = Σ_i A_ij δ_i;
- (r A)_j is the gradient of a channel of the value that is zero, whose output has the gradient r.

So no T×T matrix exists for them. In half precision r takes two channels, a high and a low part, in units of its largest
number: else small ones would have few digits.

Torch's attention keeps log Σ exp of each query's scores, but does not promise it: it is tested on the user's device at
first use, for each precision and head dimension. Letters in shapes: N examples, H heads, T tokens, D head dimension.
"""

import math
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.autograd.graph import saved_tensors_hooks

from captum_gmar.engine.kernels.layer import CHANNELS_MORE, AttentionLayer, LayerGradient, LayerTap, resolve_scale
from captum_gmar.engine.kernels.precision import sum_dtype, without_autocast
from captum_gmar.engine.kernels.reduction import HeadSums, Reduction

FLASH = "ScaledDotProductFlashAttentionBackward0", "ScaledDotProductFlashAttentionForCpuBackward0"
LARGEST_ERROR = 1e-3  # of a sum itself; half precision is exact in products, which add up in single precision
_SMALLEST = torch.finfo(torch.float32).tiny  # of a unit, which must not be zero


@dataclass(eq=False)
class FusedTap(LayerTap):
    """A layer in torch's own backward, beside which a listener reads it."""

    matrix: str | None = None  # "attention" or "product", of which rows are read by the gradient of the value
    unit: Tensor | None = None  # of the row on its way, in half precision

    def attend(self, layer: AttentionLayer, value: Tensor) -> Tensor:
        """Compute ``F.scaled_dot_product_attention``."""
        query, key, mask = layer.query, layer.key, layer.mask
        scale, size = resolve_scale(query, layer.scale), value.shape[-1]
        constants = query.detach(), key.detach(), value.detach(), None if mask is None else mask.detach()
        if self.matrix == "attention":
            query, key, value = (_Padded.apply(tensor) for tensor in (query, key, value))  # type: ignore[no-untyped-call]
        if self.matrix is not None:
            value = _Received.apply(value, self.edge, constants[2], self)  # type: ignore[no-untyped-call]
        output = F.scaled_dot_product_attention(query, key, value, mask, scale=scale)
        lse = log_sums(output, query) if mask is None and self.matrix is None else None
        tapped: Tensor = _Tapped.apply(output, self.edge, *constants, lse, scale, size, self)  # type: ignore[no-untyped-call]
        return tapped


class _Tapped(torch.autograd.Function):
    """The first ``size`` channels of the output."""

    @staticmethod
    def forward(
        ctx: Any,
        output: Tensor,
        anchor: Tensor,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Tensor | None,
        lse: Tensor | None,
        scale: float,
        size: int,
        tap: FusedTap,
    ) -> Tensor:
        ctx.save_for_backward(query, key, value, mask, lse)
        ctx.scale, ctx.tap, ctx.channels = scale, tap, output.shape[-1]
        if output.shape[-1] == size:
            return output.view_as(output)
        return output[..., :size].transpose(1, 2).contiguous().transpose(1, 2)  # laid out as torch does

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, mask, lse = ctx.saved_tensors
        tap: FusedTap = ctx.tap
        row = None
        with without_autocast(query.device.type):
            if tap.listener is not None:
                layer = LayerGradient(query, key, value, grad_output, mask, ctx.scale, lse)
                row = tap.listener.on_gradient(tap.number, layer, tap.matrix is not None)
            gradient = grad_output
            if ctx.channels > grad_output.shape[-1]:
                gradient = _append_row(grad_output, row, tap)
        return gradient, tap.edge.detach(), *[None] * 8


def _append_row(grad_output: Tensor, row: Tensor | None, tap: FusedTap) -> Tensor:
    """Return the gradient of the output (N, H, T, D), with the row in the channels after it (N, H, T, D + E)."""
    examples, heads, tokens, size = grad_output.shape
    gradient = grad_output.new_zeros(examples, tokens, heads, size + CHANNELS_MORE)
    gradient[..., :size] = grad_output.transpose(1, 2)
    if row is not None:
        tap.unit = write_row(row, gradient[..., size:])
    return gradient.transpose(1, 2)


class _Padded(torch.autograd.Function):
    """Padding of the last dimension by channels that are zero."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        ctx.size = tensor.shape[-1]
        return F.pad(tensor, (0, CHANNELS_MORE))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient[..., : ctx.size]  # to be copied once, by who needs it in one piece


class _Received(torch.autograd.Function):
    """The value as it is, whose gradient is read."""

    @staticmethod
    def forward(ctx: Any, padded: Tensor, anchor: Tensor, value: Tensor, tap: FusedTap) -> Tensor:
        ctx.save_for_backward(value)
        ctx.tap = tap
        return padded.view_as(padded)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_value: Tensor) -> tuple[Tensor | None, ...]:
        (value,) = ctx.saved_tensors
        tap: FusedTap = ctx.tap
        if tap.listener is not None:
            with without_autocast(value.device.type):
                tap.listener.on_rows(tap.number, _rows(grad_value, value, tap))
        return grad_value, tap.edge.detach(), None, None


def _rows(grad_value: Tensor, value: Tensor, tap: FusedTap) -> Tensor:
    """Return rows (N, H, T) by the gradient of the value (N, H, T, D or D + E), in single precision at least."""
    wide = sum_dtype(grad_value.dtype)
    size = value.shape[-1]
    if tap.matrix == "product":
        return (value.to(wide) * grad_value[..., :size].to(wide)).sum(-1)
    return read_row(grad_value[..., size:], tap.unit)


def write_row(row: Tensor, channels: Tensor) -> Tensor | None:
    """Write the row r (N, T) into channels of a gradient (N, T, H, E); return its unit, if it has one."""
    if torch.finfo(channels.dtype).bits >= 32:
        channels[..., 0] = row[..., None]
        return None
    unit: Tensor = torch.linalg.vector_norm(row, math.inf).clamp_(min=_SMALLEST)
    high = (share := row / unit).to(channels.dtype)
    channels[..., 0] = high[..., None]
    channels[..., 1] = (share - high)[..., None]
    return unit


def read_row(channels: Tensor, unit: Tensor | None) -> Tensor:
    """Return r A (N, H, T) by the value's gradient in these channels (N, H, T, E), in single precision at least."""
    return channels[..., 0].contiguous() if unit is None else channels[..., :2].sum(-1, dtype=unit.dtype) * unit


def is_row_of_attention(layer: LayerGradient, reduction: Reduction) -> bool:
    """Return whether r A is all of the reduction."""
    return reduction._replace(row=None) == Reduction(matrix="attention")


def read_by_value(layer: LayerGradient, reduction: Reduction) -> HeadSums:
    """Compute r A by torch's own attention, forward and backward, of a value that is zero."""
    assert reduction.row is not None
    query, key = layer.query.detach(), layer.key.detach()
    with torch.enable_grad():
        value = torch.zeros_like(key).requires_grad_()
        output = F.scaled_dot_product_attention(query, key, value, layer.mask, scale=layer.scale)
    gradient = torch.zeros_like(output.transpose(1, 2))
    unit = write_row(reduction.row, gradient)
    (grad_value,) = torch.autograd.grad(output, value, gradient.transpose(1, 2))
    return HeadSums(read_row(grad_value, unit))


def attention_and_log_sums(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scale: float | None
) -> tuple[Tensor, Tensor | None]:
    """Compute ``F.scaled_dot_product_attention`` without gradient, and its log sums (N, H, T) if torch keeps them."""
    if query.device.type == "cpu" or mask is not None:
        return F.scaled_dot_product_attention(query, key, value, mask, scale=scale), None
    with torch.enable_grad(), saved_tensors_hooks(lambda tensor: tensor, lambda tensor: tensor):
        differentiable = query.detach().requires_grad_()
        attended = F.scaled_dot_product_attention(differentiable, key.detach(), value.detach(), scale=scale)
        sums = log_sums(attended, query)
    return attended.detach(), sums


def log_sums(attended: Tensor, query: Tensor) -> Tensor | None:
    """Return log Σ exp of the scores (N, H, T) of each query (N, H, T, D) without mask, if torch kept them."""
    sums = _saved_log_sums(attended, query)
    return sums if sums is not None and _is_right(query.device, query.dtype, query.shape[-1]) else None


def _saved_log_sums(attended: Tensor, query: Tensor) -> Tensor | None:
    node = attended.grad_fn
    sums = getattr(node, "_saved_logsumexp", None) if type(node).__name__ in FLASH else None
    return sums.contiguous() if isinstance(sums, Tensor) and sums.shape == query.shape[:-1] else None


@cache
def _is_right(device: torch.device, precision: torch.dtype, size: int) -> bool:
    """Return whether torch keeps right sums of a random layer."""
    random = torch.Generator().manual_seed(0)
    query, key, value = (
        torch.randn(2, 33, 2, size, generator=random).transpose(1, 2).to(device, precision) for _ in range(3)
    )
    with torch.enable_grad(), saved_tensors_hooks(lambda tensor: tensor, lambda tensor: tensor):
        sums = _saved_log_sums(F.scaled_dot_product_attention(query.requires_grad_(), key, value), query)
    exact = (query.detach().cpu().double() @ key.cpu().double().mT * size**-0.5).logsumexp(-1)
    return sums is not None and bool(((sums.cpu() - exact).abs() < LARGEST_ERROR).all())
