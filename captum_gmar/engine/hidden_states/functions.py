"""Functions whose backward pass holds constant what gates, scales or weighs: the same results, another gradient.

Each gives what torch's function gives. For its gradient it is linear: input times gradient is what of the output came
from that input, and the bias gives the rest.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from captum_gmar.engine.kernels.precision import wide


def layer_norm(
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    *_: Any,
) -> Tensor:
    """The mean is taken off, and the standard deviation is constant."""
    input, leading = _as_autocast_has_it(input), input.shape[: input.dim() - len(normalized_shape)]

    def run(x: Tensor) -> tuple[Tensor, Tensor]:
        output, _, scale = torch.native_layer_norm(x, list(normalized_shape), weight, bias, eps)
        return output, scale

    return _normalised(input, run, weight, bias, (*leading, -1), centred=True)


def rms_norm(
    input: Tensor, normalized_shape: Sequence[int], weight: Tensor | None = None, eps: float | None = None
) -> Tensor:
    """The root mean square is constant."""
    leading = input.shape[: input.dim() - len(normalized_shape)]

    def run(x: Tensor) -> tuple[Tensor, Tensor]:
        mean = wide(x).pow(2).reshape(*leading, -1).mean(-1)
        return F.rms_norm(x, list(normalized_shape), weight, eps), (mean + (eps or torch.finfo(x.dtype).eps)).rsqrt()

    return _normalised(input, run, weight, None, (*leading, -1), centred=False)


def group_norm(
    input: Tensor,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    *_: Any,
) -> Tensor:
    """As :func:`layer_norm`, of each group of channels."""
    input = _as_autocast_has_it(input)
    examples, channels, *size = input.shape

    def run(x: Tensor) -> tuple[Tensor, Tensor]:
        arguments = x.contiguous(), weight, bias, examples, channels, math.prod(size), num_groups, eps
        output, _, scale = torch.native_group_norm(*arguments)
        return output, scale

    by_channel = None if weight is None else weight.view(-1, *(1 for _ in size))
    return _normalised(input, run, by_channel, bias, (examples, num_groups, -1), centred=True)


def normalize(input: Tensor, p: float = 2.0, dim: Any = 1, eps: float = 1e-12, out: None = None) -> Tensor:
    """The norm is constant."""
    norm: Tensor = input.detach().norm(p, dim, keepdim=True)
    return input / norm.clamp_min(eps)


def gated(function: Callable[..., Tensor], gate: Callable[[Tensor], Tensor]) -> Callable[..., Tensor]:
    """An activation x · gate(x), of which the gate is constant; it works on no input in place."""

    def activate(input: Tensor, *args: Any, inplace: bool = False, **kwargs: Any) -> Tensor:
        activated: Tensor = _Gated.apply(input, partial(function, *args, **kwargs), gate)  # type: ignore[no-untyped-call]
        return activated

    return activate


def gelu(input: Tensor, approximate: str = "none") -> Tensor:
    """``F.gelu`` with a constant gate."""
    gate = _gelu_gate if approximate == "none" else _gelu_tanh_gate
    return gated(partial(F.gelu, approximate=approximate), gate)(input)


def glu(input: Tensor, dim: int = -1) -> Tensor:
    """The half that goes through the sigmoid is the gate of the other, and constant."""
    values, gates = input.chunk(2, dim)
    return values * gates.detach().sigmoid()


silu = gated(F.silu, torch.sigmoid)
mish = gated(F.mish, lambda x: F.softplus(x).tanh())
hardswish = gated(F.hardswish, F.hardsigmoid)


def scaled_gradient(tensor: Tensor, factor: float) -> Tensor:
    """The same tensor, whose gradient is multiplied by a factor on the way back."""
    scaled: Tensor = _ScaledGradient.apply(tensor, factor)  # type: ignore[no-untyped-call]
    return scaled


def in_proportion(input: Tensor, output: Tensor) -> Tensor:
    """``output`` as a multiple of ``input``, element by element, the ratio of which is constant."""
    output = output.detach()
    ratio = torch.where(input == 0, 0, output / input.detach())
    proportional: Tensor = _Gated.apply(input, lambda x: output, lambda x: ratio)  # type: ignore[no-untyped-call]
    return proportional


def _gelu_gate(x: Tensor) -> Tensor:
    return torch.erf(x * math.sqrt(0.5)).add_(1).mul_(0.5)


def _gelu_tanh_gate(x: Tensor) -> Tensor:
    return torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)).add_(1).mul_(0.5)


def _as_autocast_has_it(input: Tensor) -> Tensor:
    """In the precision in which autocast, if it is on, has norms computed."""
    return input.float() if torch.is_autocast_enabled(input.device.type) else input


def _normalised(
    input: Tensor,
    run: Callable[[Tensor], tuple[Tensor, Tensor]],
    weight: Tensor | None,
    bias: Tensor | None,
    groups: Sequence[int],
    centred: bool,
) -> Tensor:
    normalised: Tensor = _Normalised.apply(input, bias, run, weight, groups, centred)  # type: ignore[no-untyped-call]
    return normalised


class _Normalised(torch.autograd.Function):
    """A norm over the last dimension of the input in the shape ``groups``, with one scale for each group."""

    @staticmethod
    def forward(
        ctx: Any,
        input: Tensor,
        bias: Tensor | None,
        run: Callable[[Tensor], tuple[Tensor, Tensor]],
        weight: Tensor | None,
        groups: Sequence[int],
        centred: bool,
    ) -> Tensor:
        output, scale = run(input)
        ctx.save_for_backward(weight, scale)
        ctx.shape, ctx.dtype, ctx.groups, ctx.centred = input.shape, input.dtype, groups, centred
        ctx.bias_shape = None if bias is None else bias.shape
        return output

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        weight, scale = ctx.saved_tensors
        weighted = grad if weight is None else grad * weight
        grouped = weighted.reshape(ctx.groups) * scale.reshape(*ctx.groups[:-1], 1)
        if ctx.centred:
            grouped = grouped - grouped.mean(-1, keepdim=True)
        grad_bias = None
        if ctx.needs_input_grad[1]:
            per_channel = grad if weight is None or weight.dim() == len(ctx.bias_shape) else grad.movedim(1, -1)
            grad_bias = per_channel.sum_to_size(ctx.bias_shape)
        return grouped.reshape(ctx.shape).to(ctx.dtype), grad_bias, None, None, None, None


class _Gated(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, input: Tensor, function: Callable[[Tensor], Tensor], gate: Callable[[Tensor], Tensor]
    ) -> Tensor:
        ctx.save_for_backward(gate(input))
        return function(input)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        (gate,) = ctx.saved_tensors
        return grad * gate, None, None


class _ScaledGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return tensor.view_as(tensor)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        return grad * ctx.factor, None
