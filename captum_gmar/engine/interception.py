"""``torch.nn.MultiheadAttention`` with another attention in it.

Its work is done by ``F.multi_head_attention_forward``, inside which a ``TorchFunctionMode`` sees nothing. So torch's
own code is run as a function whose names mean something else: the attention it calls, and the question whether anybody
overrides it.
"""

import inspect
from collections.abc import Callable, Sequence
from types import FunctionType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

_SIGNATURE = inspect.signature(F.multi_head_attention_forward)


def multi_head_attention_forward(
    attend: Callable[..., Tensor], anchors: Sequence[Tensor], *args: Any, **kwargs: Any
) -> tuple[Tensor, Tensor | None]:
    """``F.multi_head_attention_forward`` with ``attend`` in place of ``F.scaled_dot_product_attention``.

    Attention weights, if asked for, come from torch, and no gradient goes through them: that raises an error.

    Args:
        attend: takes what ``F.scaled_dot_product_attention`` takes.
        anchors: what ``attend`` hangs its results on, filled while it runs.
    """
    arguments = _SIGNATURE.bind(*args, **kwargs).arguments
    needs_weights = arguments.get("need_weights", True)
    output, _ = _with_names(scaled_dot_product_attention=attend)(**{**arguments, "need_weights": False})
    if not needs_weights:
        return output, None
    with torch.no_grad():
        _, weights = _with_names()(**{**arguments, "need_weights": True})
    return output, _WithoutGradient.apply(weights, *anchors[-1:])  # type: ignore[no-untyped-call]


def _with_names(**names: Any) -> Callable[..., tuple[Tensor, Any]]:
    original: Any = F.multi_head_attention_forward
    names = {**vars(F), "has_torch_function": lambda tensors: False, **names}
    return FunctionType(original.__code__, names, original.__name__, original.__defaults__, original.__closure__)


class _WithoutGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weights: Tensor, *anchors: Tensor) -> Tensor:
        return weights.view_as(weights)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        raise RuntimeError(
            "The model computes with the attention weights that nn.MultiheadAttention returns, and no gradient can be "
            "had through them. Use a method that needs none, AttentionRollout or RawAttention."
        )
