"""Readout of each layer: the logits that the rest of the model gives to the layer's output."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from captum_gmar.engine.attention.forward import ForwardPass
from captum_gmar.engine.checks import NoPatchGridError
from captum_gmar.engine.hooks.constants import detach_tensor
from captum_gmar.engine.hooks.threads import hook_modules
from captum_gmar.engine.models.patch_grid import check_rows


def sum_layer_logits(logits: Tensor, forward_pass: ForwardPass, model: nn.Module) -> Tensor:
    """Sum the logits (L·N, ...) of all layers, an output under :func:`separate_layers`: (N, ...)"""
    layers = forward_pass.apart
    if forward_pass.count and forward_pass.count != layers:
        raise RuntimeError(
            f"{type(model).__name__} must attend over the patch grid once in each of its {layers} layers, but does so "
            f"{forward_pass.count} times. Run the model once in forward_func."
        )
    check_rows(logits, forward_pass.examples, layers)
    return torch.stack(logits.chunk(layers)).sum(0)


@contextmanager
def separate_layers(layers: Sequence[nn.Module], forward_pass: ForwardPass) -> Iterator[None]:
    """Give each layer the gradient of its own logits, within the block and this thread.

    A layer's own logits are those of the model without the layers after it. One pass computes all of them: layers take
    their inputs detached, so that no gradient goes from one to another, and the outputs of all layers leave the last
    one, as more examples.
    """
    outputs: list[Tensor] = []

    def detach(layer: nn.Module, args: Any, kwargs: Any) -> Any:
        tokens = next((value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)), None)
        forward_pass.entry = forward_pass.entry or (None if tokens is None else tokens.grad_fn)
        return tuple(map(detach_tensor, args)), {name: detach_tensor(value) for name, value in kwargs.items()}

    def collect(layer: nn.Module, args: Any, output: Any) -> Any:
        outputs.append(output if isinstance(output, Tensor) else output[0])
        if layer is not layers[-1]:
            return None
        layer_outputs = [tokens.to(outputs[-1].device) for tokens in outputs]  # of a model that is spread over several
        is_first = len(layer_outputs[0]) == forward_pass.examples  # torch's layers may take tokens first
        joined = torch.cat(layer_outputs, 0 if is_first else 1)
        return joined if isinstance(output, Tensor) else (joined, *output[1:])

    with hook_modules(layers, detach, collect):
        try:
            yield
        except RuntimeError as error:
            if len(outputs) < len(layers) or isinstance(error, NoPatchGridError | torch.OutOfMemoryError):
                raise
            rows = len(layers) * forward_pass.examples
            raise RuntimeError(
                f"forward_func must handle any number of examples, each on its own, but fails on {rows} rows, of "
                f"{len(layers)} layers for {forward_pass.examples} examples ({error}). Return the output of one model."
            ) from error
