"""Attention that is torch's own in both directions, beside which a layer is read on the way back.

A watcher behind the attention gets the gradient of its output before torch's backward does, and reads what can be read
of that alone. What needs the gradient of the value is read where that comes out of torch's backward, by two identities
(O = A V, δ the gradient of O, r a row of relevance):

- Σ_i (A ⊙ G)_ij = v_j · ∂/∂v_j, the value times its gradient, because ∂/∂v_j = Σ_i A_ij δ_i;
- (r A)_j is the gradient of a channel of the value that is zero, whose output has the gradient r.

So no T×T matrix exists for them. In half precision r takes two channels, a high and a low part.

Letters in shapes: N examples, H heads, T tokens, D head dimension, E channels more.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from captum_gmar.engine.kernels.layer import scale_of
from captum_gmar.engine.kernels.logsumexp import log_sums
from captum_gmar.engine.kernels.precision import of_sums, without_autocast
from captum_gmar.engine.kernels.reduction import LayerGradient
from captum_gmar.engine.kernels.row_channels import read_row, write_row

CHANNELS_MORE = 8  # E: kernels take head dimensions in steps of so many


@dataclass(eq=False)
class Watcher:
    """What reads a layer in backward. It may be said after the pass forward.

    Attributes:
        anchor: a scalar that requires grad and receives zero: autograd comes here even if nothing else asks for it.
        matrix: "attention" or "product", of what is read by the gradient of the value; None if nothing is.
        on_gradient: takes the layer and the gradient of its output; gives the row r (N, T) if that is wanted.
        on_rows: takes what was read by the gradient of the value (N, H, T).
    """

    anchor: Tensor
    matrix: str | None = None
    on_gradient: Callable[[LayerGradient], Tensor | None] | None = None
    on_rows: Callable[[Tensor], None] | None = None
    unit: Tensor | None = None  # of the row on its way, in half precision


def fused_attention(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scale: float | None, watcher: Watcher
) -> Tensor:
    """``F.scaled_dot_product_attention``, which the watcher sees in backward."""
    scale, size = scale_of(query, scale), value.shape[-1]
    constants = query.detach(), key.detach(), value.detach(), None if mask is None else mask.detach()
    if watcher.matrix == "attention":
        query, key, value = (_Padded.apply(tensor) for tensor in (query, key, value))  # type: ignore[no-untyped-call]
    if watcher.matrix is not None:
        value = _Received.apply(value, watcher.anchor, constants[2], watcher)  # type: ignore[no-untyped-call]
    output = F.scaled_dot_product_attention(query, key, value, mask, scale=scale)
    lse = log_sums(output, query) if mask is None and watcher.matrix is None else None
    watched: Tensor = _Watched.apply(output, watcher.anchor, *constants, lse, scale, size, watcher)  # type: ignore[no-untyped-call]
    return watched


class _Watched(torch.autograd.Function):
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
        watcher: Watcher,
    ) -> Tensor:
        ctx.save_for_backward(query, key, value, mask, lse)
        ctx.scale, ctx.watcher, ctx.channels = scale, watcher, output.shape[-1]
        if output.shape[-1] == size:
            return output.view_as(output)
        return output[..., :size].transpose(1, 2).contiguous().transpose(1, 2)  # laid out as torch does

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, mask, lse = ctx.saved_tensors
        watcher: Watcher = ctx.watcher
        row = None
        with without_autocast(query.device.type):
            if watcher.on_gradient is not None:
                row = watcher.on_gradient(LayerGradient(query, key, value, grad_output, mask, ctx.scale, lse))
            gradient = grad_output
            if ctx.channels > grad_output.shape[-1]:
                gradient = _with_row(grad_output, row, watcher)
        return gradient, watcher.anchor.detach(), *[None] * 8


def _with_row(grad_output: Tensor, row: Tensor | None, watcher: Watcher) -> Tensor:
    """The gradient of the output (N, H, T, D), with the row in the channels after it (N, H, T, D + E)."""
    examples, heads, tokens, size = grad_output.shape
    gradient = grad_output.new_zeros(examples, tokens, heads, size + CHANNELS_MORE)
    gradient[..., :size] = grad_output.transpose(1, 2)
    if row is not None:
        watcher.unit = write_row(row, gradient[..., size:])
    return gradient.transpose(1, 2)


class _Padded(torch.autograd.Function):
    """With channels more, which are zero."""

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
    def forward(ctx: Any, padded: Tensor, anchor: Tensor, value: Tensor, watcher: Watcher) -> Tensor:
        ctx.save_for_backward(value)
        ctx.watcher = watcher
        return padded.view_as(padded)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_value: Tensor) -> tuple[Tensor | None, ...]:
        (value,) = ctx.saved_tensors
        watcher: Watcher = ctx.watcher
        if watcher.on_rows is not None:
            with without_autocast(value.device.type):
                watcher.on_rows(_rows(grad_value, value, watcher))
        return grad_value, watcher.anchor.detach(), None, None


def _rows(grad_value: Tensor, value: Tensor, watcher: Watcher) -> Tensor:
    """(N, H, T) by the gradient of the value (N, H, T, D or D + E), in single precision at least."""
    wide = of_sums(grad_value.dtype)
    size = value.shape[-1]
    if watcher.matrix == "product":
        return (value.to(wide) * grad_value[..., :size].to(wide)).sum(-1)
    return read_row(grad_value[..., size:], watcher.unit)
