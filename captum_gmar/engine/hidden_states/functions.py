"""Torch functions with LibraGrad's gradients, which hold gates and denominators constant.

Each function returns the results of torch's function. Its gradient is that of a linear function: inputs and biases
times their gradients sum to the output.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from captum_gmar.engine.kernels.precision import widen


def layer_norm(
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    *_: Any,
) -> Tensor:
    """Run layer norm with a constant standard deviation; the mean has a gradient."""
    input, leading = _cast_as_autocast(input), input.shape[: input.dim() - len(normalized_shape)]

    def run(x: Tensor) -> tuple[Tensor, Tensor]:
        output, _, scale = torch.native_layer_norm(x, list(normalized_shape), weight, bias, eps)
        return output, scale

    return _normalise(input, bias, run, weight, (*leading, -1), True)


def rms_norm(
    input: Tensor, normalized_shape: Sequence[int], weight: Tensor | None = None, eps: float | None = None
) -> Tensor:
    """Run RMS norm with a constant root mean square."""
    leading = input.shape[: input.dim() - len(normalized_shape)]

    def run(x: Tensor) -> tuple[Tensor, Tensor]:
        mean = widen(x).pow(2).reshape(*leading, -1).mean(-1)
        return F.rms_norm(x, list(normalized_shape), weight, eps), (mean + (eps or torch.finfo(x.dtype).eps)).rsqrt()

    return _normalise(input, None, run, weight, (*leading, -1), False)


def group_norm(
    input: Tensor, num_groups: int, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5, *_: Any
) -> Tensor:
    """Run group norm with constant standard deviations."""
    input = _cast_as_autocast(input)
    examples, channels, *size = input.shape

    def run(x: Tensor) -> tuple[Tensor, Tensor]:
        arguments = x.contiguous(), weight, bias, examples, channels, math.prod(size), num_groups, eps
        output, _, scale = torch.native_group_norm(*arguments)
        return output, scale

    channel_weight = None if weight is None else weight.view(-1, *(1 for _ in size))
    return _normalise(input, bias, run, channel_weight, (examples, num_groups, -1), True)


def normalize(input: Tensor, p: float = 2.0, dim: Any = 1, eps: float = 1e-12, out: None = None) -> Tensor:
    """Run ``F.normalize`` with a constant norm."""
    norm: Tensor = input.detach().norm(p, dim, keepdim=True)
    return input / norm.clamp_min(eps)


def hold_gate(function: Callable[..., Tensor], gate: Callable[[Tensor], Tensor]) -> Callable[..., Tensor]:
    """Return an activation x · gate(x) with a constant gate, which never works in place."""

    def activate(input: Tensor, *args: Any, inplace: bool = False, **kwargs: Any) -> Tensor:
        output: Tensor = _HeldGate.apply(input, partial(function, *args, **kwargs), gate)  # type: ignore[no-untyped-call]
        return output

    return activate


def gelu(input: Tensor, approximate: str = "none") -> Tensor:
    """Run GELU with a constant gate."""
    gate = _gelu_gate if approximate == "none" else _gelu_tanh_gate
    return hold_gate(partial(F.gelu, approximate=approximate), gate)(input)


def glu(input: Tensor, dim: int = -1) -> Tensor:
    """Run GLU with a constant gate, the half that goes through the sigmoid."""
    values, gates = input.chunk(2, dim)
    return values * gates.detach().sigmoid()


silu = hold_gate(F.silu, torch.sigmoid)
mish = hold_gate(F.mish, lambda x: F.softplus(x).tanh())
hardswish = hold_gate(F.hardswish, F.hardsigmoid)


def scale_gradient(tensor: Tensor, factor: float) -> Tensor:
    """Return the tensor; the backward pass multiplies its gradient by a factor."""
    result: Tensor = _GradientScale.apply(tensor, factor)  # type: ignore[no-untyped-call]
    return result


def hold_ratio(input: Tensor, output: Tensor) -> Tensor:
    """Return ``output`` as ``input`` times a constant ratio, element by element."""
    output = output.detach()
    ratio = torch.where(input == 0, 0, output / input.detach())
    result: Tensor = _HeldGate.apply(input, lambda x: output, lambda x: ratio)  # type: ignore[no-untyped-call]
    return result


def _gelu_gate(x: Tensor) -> Tensor:
    return torch.erf(x * math.sqrt(0.5)).add_(1).mul_(0.5)


def _gelu_tanh_gate(x: Tensor) -> Tensor:
    return torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)).add_(1).mul_(0.5)


def _cast_as_autocast(input: Tensor) -> Tensor:
    """Convert the input to autocast's precision for norms, if autocast is on."""
    return input.float() if torch.is_autocast_enabled(input.device.type) else input


class _HeldNorm(torch.autograd.Function):
    """Norm over the last dimension of the input in shape ``groups``, with one constant scale per group."""

    @staticmethod
    def forward(
        ctx: Any,
        input: Tensor,
        bias: Tensor | None,
        run: Callable[[Tensor], tuple[Tensor, Tensor]],
        weight: Tensor | None,
        groups: Sequence[int],
        subtracts_mean: bool,
    ) -> Tensor:
        output, scale = run(input)
        ctx.save_for_backward(weight, scale)
        ctx.shape, ctx.dtype, ctx.groups, ctx.subtracts_mean = input.shape, input.dtype, groups, subtracts_mean
        ctx.bias_shape = None if bias is None else bias.shape
        return output

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        weight, scale = ctx.saved_tensors
        grad_input = (grad if weight is None else grad * weight).reshape(ctx.groups)
        grad_input = grad_input * scale.reshape(*ctx.groups[:-1], 1)
        if ctx.subtracts_mean:
            grad_input = grad_input - grad_input.mean(-1, keepdim=True)
        grad_bias = None
        if ctx.needs_input_grad[1]:
            per_channel = grad if weight is None or weight.dim() == len(ctx.bias_shape) else grad.movedim(1, -1)
            grad_bias = per_channel.sum_to_size(ctx.bias_shape)
        return grad_input.reshape(ctx.shape).to(ctx.dtype), grad_bias, None, None, None, None


# Arguments are those of the class's forward.
_normalise: Callable[..., Tensor] = _HeldNorm.apply


class _HeldGate(torch.autograd.Function):
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


class _GradientScale(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return tensor.view_as(tensor)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        return grad * ctx.factor, None
