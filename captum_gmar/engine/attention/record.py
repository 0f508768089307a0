"""Dense attention and gradients of a whole model, to look at heads and to check other passes."""

from copy import copy
from functools import partial
from types import MethodType
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from captum_gmar.engine._captum import TargetType, _run_forward
from captum_gmar.engine.models.attention_backend import attention_implementation
from captum_gmar.engine.models.patch_grid import Logits, check_model, check_rows
from captum_gmar.engine.request import leaf, pixel_values
from captum_gmar.engine.targets import select


class AttentionRecord(NamedTuple):
    """The attention of every layer and its gradient, first layer first."""

    attention: tuple[Tensor, ...]  # L of (N, H, T, T), rows summing to 1
    gradient: tuple[Tensor, ...]  # L of (N, H, T, T), of the target's logit with respect to the attention


def record_attention(
    model: nn.Module,
    inputs: Tensor | tuple[Tensor, ...],
    target: TargetType = None,
    additional_forward_args: object = None,
) -> AttentionRecord:
    """Run a Hugging Face model with ``output_attentions=True`` and keep every attention and gradient matrix.

    It takes several times the time and memory of :class:`~captum_gmar.GMARAttribution`, which needs neither.

    Args:
        model: a Hugging Face model. If its attention is not "eager", it is for this one pass.
        inputs: pixel values (N, channels, height, width).
        target: class index, in any form that Captum takes.
        additional_forward_args: further positional arguments of the model, after the inputs.

    Returns:
        AttentionRecord: ``attention`` and ``gradient``, each a tuple of L tensors (N, H, T, T), detached.

    Raises:
        AssertionError: from Captum, if the target has none of its forms.
        ValueError: if the target is no complete index of an output.
        TypeError: if the model's output holds no attention.
    """
    check_model(model)
    double, outputs = _double(model), []

    def run(*args: object) -> object:
        outputs.append(double(*args, output_attentions=True))
        return outputs[-1]

    pixels = pixel_values(inputs)
    with torch.inference_mode(False), torch.enable_grad():
        with attention_implementation(model, "eager"):
            logits = cast(Tensor, _run_forward(Logits(run), leaf(pixels), None, additional_forward_args))
        attention = getattr(outputs[-1], "attentions", None)
        if not attention:
            raise TypeError(
                "model must return attentions with output_attentions=True, but "
                f'{type(model).__name__} returned none. Load it with attn_implementation="eager".'
            )
        check_rows(logits, len(pixels))
        selected = select(logits, target, None)
        gradient = torch.autograd.grad(selected.sum(), attention)
    return AttentionRecord(tuple(a.detach() for a in attention), gradient)


def _double(model: nn.Module) -> nn.Module:
    """Return a model of modules of its own, which share the model's tensors, configs and the user's hooks; uncompiled.

    What transformers leaves on modules to collect attention, hooks or patched forwards, it leaves there: taken away
    from the model itself, it would be missed by passes of other threads that were collecting meanwhile.
    """
    model = getattr(model, "_orig_mod", model)
    doubles = {module: module.__new__(type(module)) for module in model.modules()}

    def double_of(value: Any) -> Any:
        """Return a value with doubles in the place of modules, also in bound and partial functions."""
        if isinstance(value, nn.Module):
            return doubles.get(value, value)
        if isinstance(value, MethodType):
            return MethodType(value.__func__, double_of(value.__self__))
        if isinstance(value, partial):
            return partial(value.func, *map(double_of, value.args), **value.keywords)
        return value

    for module, double in doubles.items():
        parts = {name: copy(part) if isinstance(part, dict) else double_of(part) for name, part in vars(module).items()}
        parts["_modules"] = {name: double_of(child) for name, child in module._modules.items()}
        vars(double).update({**parts, "_compiled_call_impl": None})
    return doubles[model]
