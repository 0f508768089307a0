"""Readout of each layer of a model of several stages: the rest of the model without the layers after it.

A layer's output skips the later layers, and passes through the modules that merge, project or normalise between the
stages. One pass computes all readouts: behind a stage come the outputs of all layers so far, as more examples.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn

from captum_gmar.engine.hooks.threads import hook_modules
from captum_gmar.engine.models.layers import ATTENTION_NAMES

MLP_NAMES = ("mlp", "ffn", "feedforward")


class SkippedLayers:
    """The inputs and outputs of layers within :func:`skip_later_layers`.

    A *slot* holds a layer's output for all examples. Between the stages there are as many slots as layers before or,
    for models that count their examples at the start, as all layers: then those that no layer has filled yet hold the
    last output.
    """

    def __init__(self, stages: Sequence[Sequence[nn.Module]], is_whole: bool) -> None:
        self.stages = stages
        self.starts = [0, *accumulate(map(len, stages))]
        self.is_whole = is_whole
        self.is_separable = True  # layers follow one another; else the rest of the pass is in vain
        self.entries: list[Tensor] = []  # the tokens that enter each stage, of the true examples
        self.outputs: list[Tensor] = []  # of the layers of this stage so far
        self.carried: Tensor | None = None  # slots that skip this stage
        self.rows = 0  # of a slot
        self.entered = 0  # rows of all slots

    def enter(self, stage: int, place: int, tokens: Tensor) -> Tensor:
        """Return the layer's input, by the tokens (slots·N, ...) that come to it."""
        if place:
            self.is_separable &= tokens is self.outputs[-1]
            return self._alone(tokens)
        slots = self.starts[-1] if self.is_whole else max(self.starts[stage], 1)
        if len(tokens) % slots:
            self.is_separable, slots = False, 1
        self.rows, self.entered = len(tokens) // slots, len(tokens)
        true = tokens[-self.rows :] if slots > 1 else tokens
        self.entries.append(true)
        filled = self.starts[stage] if self.is_separable else 0
        self.carried = tokens[: filled * self.rows] if filled else None
        self.outputs = []
        if self.carried is not None and projects(self.stages[stage][0]):
            return torch.cat([self.carried, self._alone(true)])
        return self._alone(true)

    def leave(self, stage: int, place: int, tokens: Tensor) -> Tensor:
        """Return the tokens that go on from the layer."""
        if not place and self.carried is not None and projects(self.stages[stage][0]):
            self.carried, tokens = tokens[: -self.rows], tokens[-self.rows :]
        self.outputs.append(tokens)
        if place < len(self.stages[stage]) - 1:
            return tokens
        slots = [*([] if self.carried is None else [self.carried]), *self.outputs]
        if self.is_whole:
            slots += [tokens.detach()] * (self.starts[-1] - self.starts[stage + 1])
        self.is_separable &= len({slot.shape[1:] for slot in slots}) == 1  # timm's Hiera merges tokens within its list
        return torch.cat(slots if self.is_separable else [tokens] * (self.entered // self.rows))

    @staticmethod
    def _alone(tokens: Tensor) -> Tensor:
        return tokens.detach().requires_grad_()


@contextmanager
def skip_later_layers(
    stages: Sequence[Sequence[nn.Module]], is_whole: bool, enter_layer: Callable[[int | None], None]
) -> Iterator[SkippedLayers]:
    """Give each layer the gradient of its own logits, within the block and this thread.

    ``stages`` are the layers of each stage, with as many slots from the start on as layers if ``is_whole``.
    ``enter_layer`` is called with the layer's number before it runs, and with None after it.
    """
    passing = SkippedLayers(stages, is_whole)
    with ExitStack() as stack:
        for stage, layers in enumerate(stages):
            for place, layer in enumerate(layers):
                stack.enter_context(_hook_layer(layer, stage, place, passing, enter_layer))
            stack.enter_context(_hook_branches(branches(layers[0]) if projects(layers[0]) else [], passing))
        yield passing


def _hook_layer(
    layer: nn.Module, stage: int, place: int, passing: SkippedLayers, enter_layer: Callable[[int | None], None]
) -> AbstractContextManager[None]:
    def enter(module: nn.Module, args: Any, kwargs: Any) -> Any:
        tokens = next(value for value in (*args, *kwargs.values()) if isinstance(value, Tensor))
        changed = passing.enter(stage, place, tokens)
        enter_layer(passing.starts[stage] + place)

        def layer_argument(argument: Any) -> Any:
            if argument is tokens:
                return changed
            if not isinstance(argument, Tensor):
                return argument
            is_of_each = argument.dim() and len(argument) == passing.entered > len(changed)
            return (argument[-len(changed) :] if is_of_each else argument).detach()

        return tuple(map(layer_argument, args)), {name: layer_argument(value) for name, value in kwargs.items()}

    def leave(module: nn.Module, args: Any, output: Any) -> Any:
        enter_layer(None)
        tokens = passing.leave(stage, place, output if isinstance(output, Tensor) else output[0])
        return tokens if isinstance(output, Tensor) else (tokens, *output[1:])

    return hook_modules([layer], enter, leave)


def _hook_branches(modules: Sequence[nn.Module], passing: SkippedLayers) -> AbstractContextManager[None]:
    """Register hooks by which branches add nothing to the tokens that skip them."""

    def enter(module: nn.Module, args: Any, kwargs: Any) -> Any:
        if passing.carried is None:
            return None
        true = args[0][-passing.rows :].mul(1)  # computed anew, so that its positions are those of the true examples
        return (true, *args[1:]), kwargs

    def leave(module: nn.Module, args: Any, output: Any) -> Any:
        if passing.carried is None:
            return None
        written = output if isinstance(output, Tensor) else output[0]
        passing_by = written.new_zeros(len(passing.carried), *written.shape[1:])
        joined = torch.cat([passing_by, written])
        return joined if isinstance(output, Tensor) else (joined, *output[1:])

    return hook_modules(modules, enter, leave)


def projects(layer: nn.Module) -> bool:
    """Return whether a layer merges or projects the stream that it adds to, as Hiera's first ones of a stage."""
    return isinstance(getattr(layer, "proj", None), nn.Linear) and bool(branches(layer))


def branches(layer: nn.Module) -> list[nn.Module]:
    """Return the modules of a layer that write to its residual stream."""
    return [
        child
        for name, child in layer.named_children()
        if ATTENTION_NAMES.search(name) or any(known in type(child).__name__.lower() for known in MLP_NAMES)
    ]
