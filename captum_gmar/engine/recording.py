"""The dense way: all attention and all gradients of a model at once, for looking at heads and for checking."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from captum_gmar.engine._captum import TargetType, _run_forward, compute_gradients
from captum_gmar.engine.models import Logits, check_model
from captum_gmar.engine.request import leaf, pixel_values
from captum_gmar.engine.switching import attention_implementation


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
    """Runs a Hugging Face model with ``output_attentions=True`` and keeps every attention and gradient matrix.

    It takes several times the time and memory of :class:`~captum_gmar.GMARAttribution`, which needs neither.

    Args:
        model: a Hugging Face model. If its attention is not "eager", it is for this one pass.
        inputs: pixel values (N, channels, height, width).
        target: class index, in any form that Captum takes.
        additional_forward_args: further positional arguments of the model, after the inputs.

    Returns:
        AttentionRecord: ``attention`` and ``gradient``, each a tuple of L tensors (N, H, T, T), detached.

    Raises:
        AssertionError: from Captum, if the target does not fit the model's output.
        TypeError: if the model's output holds no attention.
    """
    check_model(model)
    outputs = []

    def run(*args: object) -> object:
        outputs.append(model(*args, output_attentions=True))
        return outputs[-1]

    pixels = pixel_values(inputs)
    with torch.inference_mode(False), torch.enable_grad():
        with attention_implementation(model, "eager"), _without_traces(model):
            output = _run_forward(Logits(run), leaf(pixels), target, additional_forward_args)
        attention = getattr(outputs[-1], "attentions", None)
        if not attention:
            raise TypeError(
                f"Expected {type(model).__name__} to return attentions when called with output_attentions=True, but "
                "it returned none. Only Hugging Face models with eager attention can be recorded."
            )
        gradient = compute_gradients(lambda: output, attention)
    return AttentionRecord(tuple(a.detach() for a in attention), gradient)


@contextmanager
def _without_traces(model: nn.Module) -> Iterator[None]:
    """Takes away what transformers leaves on a model's modules to collect attention: hooks, or patched forwards."""
    before = [(module, set(vars(module)), set(module._forward_hooks)) for module in model.modules()]
    try:
        yield
    finally:
        for module, attributes, hooks in before:
            for name in set(vars(module)) - attributes:
                del vars(module)[name]
            for hook in set(module._forward_hooks) - hooks:
                del module._forward_hooks[hook]
