"""Capture of all attention calls: ``F.scaled_dot_product_attention`` and ``torch.nn.MultiheadAttention``.

``F.multi_head_attention_forward``, which ``torch.nn.MultiheadAttention`` calls, hides its attention from a
``TorchFunctionMode``. So this module runs torch's code with two replaced globals: the attention function and
``has_torch_function``.
"""

import inspect
from abc import abstractmethod
from collections.abc import Callable, Sequence
from types import FunctionType
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from captum_gmar.engine.hooks.constants import detach_parameters
from captum_gmar.engine.kernels.layer import attention_weights

ACCESS = frozenset({"__get__", "__set__", "__delete__"})  # names of the functions behind tensor properties
_SIGNATURE = inspect.signature(F.multi_head_attention_forward)


class AttentionCall(NamedTuple):
    """Arguments of one call of ``F.scaled_dot_product_attention``."""

    query: Tensor  # (..., H, queries, D)
    key: Tensor  # (..., H, keys, D)
    value: Tensor  # (..., H, keys, D)
    attn_mask: Tensor | None = None
    dropout_p: float = 0.0
    is_causal: bool = False
    scale: float | None = None
    enable_gqa: bool = False

    def run(self) -> Tensor:
        """Run torch's function."""
        query, key, value, mask, dropout_p, is_causal, scale, enable_gqa = self
        options: dict[str, Any] = {"scale": scale, "enable_gqa": enable_gqa}
        return F.scaled_dot_product_attention(query, key, value, mask, dropout_p, is_causal, **options)

    def expand_heads(self) -> "AttentionCall":
        """Return the same call with causality as a mask, and one key and value per query head."""
        query, key, value, mask = self[:4]
        if self.is_causal:
            mask = query.new_ones(query.shape[-2], key.shape[-2], dtype=torch.bool).tril()
        if self.enable_gqa:
            key, value = (t.repeat_interleave(query.shape[-3] // t.shape[-3], -3) for t in (key, value))
        return AttentionCall(query, key, value, mask, self.dropout_p, scale=self.scale)

    def weights(self) -> Tensor:
        """Return the attention weights (..., H, queries, keys)."""
        query, key, _, mask, _, _, scale, _ = self.expand_heads()
        return attention_weights(query, key, mask, scale)


class AttentionMode(TorchFunctionMode):
    """Function mode that passes attention calls to ``attend`` and other calls to ``run``, in one thread."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention:
            return self.attend(AttentionCall(*args, **kwargs))
        if func is F.multi_head_attention_forward:
            return self.attend_in_module(*args, **kwargs)
        return self.run(func, args, kwargs)

    @abstractmethod
    def attend(self, call: AttentionCall) -> Tensor:
        """Replace ``F.scaled_dot_product_attention``."""

    def attend_in_module(self, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor | None]:
        """Replace ``F.multi_head_attention_forward`` by the same code with ``attend``."""
        return _multi_head_attention_forward(self.attend, *args, **kwargs)

    def run(self, func: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """Replace any other function."""
        return func(*args, **kwargs)


class ConstantParameterMode(AttentionMode):
    """Attention mode with constant parameters, so that autograd keeps no tensors for their gradients."""

    def attend_in_module(self, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor | None]:
        """Replace ``F.multi_head_attention_forward`` by the same code with ``attend``."""
        args, kwargs = detach_parameters((args, kwargs))
        return super().attend_in_module(*args, **kwargs)

    def run(self, func: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """Replace any other function; dropout raises an error."""
        if func is F.dropout:
            check_no_dropout(*args, **kwargs)
        if getattr(func, "__name__", None) in ACCESS or not torch.is_grad_enabled():
            return func(*args, **kwargs)  # autograd keeps nothing here
        return self.run_on_constants(func, detach_parameters(tuple(args)), detach_parameters(kwargs))

    def run_on_constants(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run any other function on arguments without parameters."""
        return func(*args, **kwargs)


def check_no_dropout(input: Tensor | None = None, p: float = 0.5, training: bool = True, inplace: bool = False) -> None:
    """Check that ``F.dropout`` of these arguments does nothing."""
    if p and training:
        raise RuntimeError(f"model must run without dropout, but drops with p={p}. Call model.eval().")


def _multi_head_attention_forward(
    attend: Callable[[AttentionCall], Tensor], *args: Any, **kwargs: Any
) -> tuple[Tensor, Tensor | None]:
    """Run ``F.multi_head_attention_forward``; a gradient through requested weights, which are torch's, is an error."""
    arguments = _SIGNATURE.bind(*args, **kwargs).arguments
    needs_weights = arguments.get("need_weights", True)
    run = _bind_globals(scaled_dot_product_attention=lambda *args, **kwargs: attend(AttentionCall(*args, **kwargs)))
    output, _ = run(**{**arguments, "need_weights": False})
    if not needs_weights:
        return output, None
    with torch.no_grad():
        _, weights = _bind_globals()(**{**arguments, "need_weights": True})
    return output, _WithoutGradient.apply(weights, output)  # type: ignore[no-untyped-call]


def _bind_globals(**names: Any) -> Callable[..., tuple[Tensor, Any]]:
    original: Any = F.multi_head_attention_forward
    names = {**vars(F), "has_torch_function": lambda tensors: False, **names}
    return FunctionType(original.__code__, names, original.__name__, original.__defaults__, original.__closure__)


class _WithoutGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weights: Tensor, output: Tensor) -> Tensor:
        return weights.view_as(weights)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        raise RuntimeError(
            "model must have a gradient, but computes with the attention weights that nn.MultiheadAttention returns. "
            "Use a method that needs none, AttentionRollout or RawAttention."
        )
