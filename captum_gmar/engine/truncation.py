"""Every layer by itself: the logits that the rest of the model gives to what comes out of each layer."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from captum_gmar.engine.forward import AttentionMeeting
from captum_gmar.engine.models import transformer_layers


def separated(
    model: nn.Module, forward_func: Callable[..., Tensor], meeting: AttentionMeeting
) -> Callable[..., Tensor]:
    """``forward_func`` returning the sum of the logits of all layers, in which each layer's gradient is its own.

    A layer's own logits are what the model gives without the layers after it. All are had in one pass: no gradient goes
    from one layer to another, and what comes out of every layer leaves the last one, as so many examples more.

    Raises:
        RuntimeError: if the layers of the model are not those that were met.
    """

    def forward(*args: Any, **kwargs: Any) -> Tensor:
        layers = transformer_layers(model)
        with _apart(layers, meeting.examples):
            logits = forward_func(*args, **kwargs)
        if meeting.count and meeting.count != len(layers):
            raise RuntimeError(
                f"Expected attention over the patch grid once in each of the {len(layers)} layers of "
                f"{type(model).__name__} but met it {meeting.count} times."
            )
        if len(logits) != len(layers) * meeting.examples:
            raise RuntimeError(
                f"Expected {len(layers) * meeting.examples} outputs, of {len(layers)} layers for {meeting.examples} "
                f"examples, but got {len(logits)}. forward_func must handle each example by itself, any number of them."
            )
        return torch.stack(logits.chunk(len(layers))).sum(0)

    return forward


@contextmanager
def _apart(layers: Sequence[nn.Module], examples: int) -> Iterator[None]:
    """Within the block, in this thread, layers take their inputs detached, and the last returns what all returned."""
    thread, outputs = threading.get_ident(), []

    def detach(layer: nn.Module, args: Any, kwargs: Any) -> Any:
        if threading.get_ident() != thread:
            return None
        return tuple(map(_detached, args)), {name: _detached(value) for name, value in kwargs.items()}

    def collect(layer: nn.Module, args: Any, output: Any) -> Any:
        if threading.get_ident() != thread:
            return None
        outputs.append(output if isinstance(output, Tensor) else output[0])
        if layer is not layers[-1]:
            return None
        together = torch.cat(outputs, 0 if len(outputs[0]) == examples else 1)  # torch's layers may take tokens first
        return together if isinstance(output, Tensor) else (together, *output[1:])

    with ExitStack() as stack:
        for layer in layers:
            stack.enter_context(layer.register_forward_pre_hook(detach, with_kwargs=True))
            stack.enter_context(layer.register_forward_hook(collect))
        yield


def _detached(argument: Any) -> Any:
    return argument.detach() if isinstance(argument, Tensor) else argument
