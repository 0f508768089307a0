"""The backward pass, in which a rule propagates relevance from each attention layer to the one before.

Letters in shapes: N examples, L layers, H heads, T tokens, D head dimension; n examples of a part.
"""

import math
import threading
from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from captum_gmar.engine.attention.forward import ForwardPass
from captum_gmar.engine.checks import without_gradient_error
from captum_gmar.engine.finite_checks import Flags, flag_each
from captum_gmar.engine.hooks.autograd_graph import gradients
from captum_gmar.engine.kernels.batched import readers
from captum_gmar.engine.kernels.blocks import GradientBlocks, fused_positive, gradient_blocks, is_large
from captum_gmar.engine.kernels.dispatch import read_layer
from captum_gmar.engine.kernels.layer import LayerGradient, covers_all, slice_examples
from captum_gmar.engine.kernels.precision import without_autocast
from captum_gmar.engine.kernels.reduction import HeadSums, Reduction, count_leading
from captum_gmar.engine.kernels.triton_reduction import is_readable
from captum_gmar.engine.rule import HeadRule, Importance, Rule, Step


class BackwardPass:
    """The propagation of relevance (N, T) from above the last layer down to the layer ``first``."""

    def __init__(self, rule: Rule, forward_pass: ForwardPass, relevance: Tensor, first: int, flags: Flags) -> None:
        self.rule = rule
        self.flags = flags
        self.forward_pass = forward_pass
        self.first = first
        self.relevance = relevance.clone()  # below the layers that came so far
        self.lowest = forward_pass.count  # the layer that came last
        self.importance: dict[int, list[Tensor | None]] = {}  # of each layer, in parts (n, H)
        self.lock = threading.Lock()  # devices have threads of their own in backward
        self.heads = HeadSums()  # of the gradient of the layer that came last
        self.largest: list[Tensor] = []  # magnitude of the gradient of each layer and part (n, T)
        # tokens that the target reads
        self.read = torch.zeros(forward_pass.tokens, dtype=torch.bool, device=relevance.device)

    def run(self, selected: Tensor, goes_again: bool = False) -> None:
        """Propagate relevance by the gradient of the scores (N,)."""
        self.forward_pass.check_gradient(selected)
        taps = self.forward_pass.taps[self.first :]
        for number, tap in enumerate(taps, self.first):
            tap.listener, tap.goes_on = self, number > self.first and not self.forward_pass.separate
        found = gradients(selected, [tap.edge for tap in taps], goes_again, allow_unused=True)
        layers = [tap.read_later(gradient) for tap, gradient in zip(taps, found, strict=True)]
        self._read_deferred([layer for layer in layers if layer is not None])
        for layer in reversed(range(self.first, self.forward_pass.count)):
            if layer not in self.importance:
                raise without_gradient_error(layer)

    def _read_deferred(self, layers: Sequence[LayerGradient]) -> None:
        """Read all layers after the backward pass; none where a gradient did not come by each."""
        if len(layers) < self.forward_pass.count - self.first:
            return
        assert isinstance(self.rule, HeadRule)
        with torch.no_grad(), without_autocast(self.relevance.device.type):
            largest = flag_each([layer.grad_output for layer in layers], lambda stacked: stacked.abs().amax((2, 4)))
            answers = readers(layers)
            for number in reversed(range(self.first, self.forward_pass.count)):
                place = number - self.first
                self._enter(number, layers[place].query.device)
                self._note_largest(number, largest[place])
                self._step(number, slice(None), self.rule.take(self.relevance, answers[place]))

    def on_blocks(self, number: int, examples: slice, blocks: GradientBlocks) -> None:
        """Take relevance through some examples of a layer, block by block."""
        with self.lock:
            if examples.start == 0:
                self._enter(number, blocks.grad_output.device)
            self.relevance = self.relevance.to(blocks.grad_output.device)  # of separate layers others come between
            self._step(number, examples, self._step_over(number, slice_examples(self.relevance, examples), blocks))

    def _step_over(self, layer: int, relevance: Tensor, blocks: GradientBlocks) -> Step:
        gradient = blocks.grad_output.view(*blocks.shape, -1)
        largest = self._look_at(layer, gradient)
        if gradient.device.type == "cpu" and (layer == self.forward_pass.count - 1 or self.forward_pass.separate):
            # In other layers all tokens count, and another device would have to be waited for.
            is_row = self.rule.layerwise  # of the gradient alone
            has_gradient = largest > 0
            reads = has_gradient if is_row else has_gradient | (relevance != 0)
            blocks.keep_first(count_leading(reads))
        return self.rule(relevance, blocks)

    def on_gradient(self, number: int, layer: LayerGradient, reads_rows: bool) -> Tensor | None:
        """Take relevance through a layer; or return the row that its value's gradient reads, which comes after."""
        with self.lock:
            self._enter(number, layer.grad_output.device)
            self._look_at(number, layer.grad_output)
            if not isinstance(self.rule, HeadRule) or not self._reads_once(self.rule, layer):
                if isinstance(self.rule, HeadRule) and is_large(layer):
                    read, fused = partial(read_layer, layer), partial(fused_positive, layer)
                    self._step(number, slice(None), self.rule.take_fused(self.relevance, read, fused))
                    return None
                for examples, blocks in gradient_blocks(layer):
                    self._step(number, examples, self.rule(self.relevance[examples], blocks))
                return None
            if not reads_rows:
                self._step(number, slice(None), self.rule.take(self.relevance, partial(read_layer, layer)))
                return None
            reduction = self.rule.reduction(self.relevance)
            self.heads = HeadSums() if reduction.norm is None else read_layer(layer, Reduction(norm=reduction.norm))
            return reduction.row

    def _reads_once(self, rule: HeadRule, layer: LayerGradient) -> bool:
        """Return whether no reading depends on another; or they take no longer than blocks do."""
        reduction = rule.reduction(self.relevance)
        return reduction.totals is None or is_readable(layer, reduction)

    def on_rows(self, number: int, rows: Tensor) -> None:
        """Take relevance through a layer whose rows were read by its value's gradient."""
        assert isinstance(self.rule, HeadRule)
        with self.lock:
            self.relevance = self.relevance.to(rows.device)
            self._step(number, slice(None), self.rule.step(self.relevance, self.heads._replace(rows=rows)))

    def _enter(self, layer: int, device: torch.device) -> None:
        self.lowest -= 1
        self.importance[layer] = []
        if layer != self.lowest and not self.forward_pass.separate:  # those come as their devices are done with them
            raise RuntimeError(
                f"target must depend on every layer in turn, but reaches attention layer {layer} before layer "
                f"{self.lowest} in the backward pass. Return an output of the last layer from forward_func."
            )
        self.relevance = self.relevance.to(device)

    def _step(self, layer: int, examples: slice, step: Step) -> None:
        if examples == slice(None) or covers_all(examples, len(self.relevance)):
            self.relevance = step.relevance
        else:
            self.relevance[examples] = step.relevance
        self.importance[layer].append(step.importance)

    def _look_at(self, layer: int, gradient: Tensor) -> Tensor:
        """Note the largest magnitudes of the gradient (n, H, T, D) of a layer's output; return each token's (n, T)."""
        largest = _largest(gradient)  # not finite if any number is not, and quicker than to look at each
        self._note_largest(layer, largest)
        return largest

    def _note_largest(self, layer: int, largest: Tensor) -> None:
        self.flags.finite(largest, f"gradient at attention layer {layer}")
        self.largest.append(largest)
        if layer == self.forward_pass.count - 1:
            self.read = self.read.to(largest.device) | (largest > 0).any(0)

    def check_start(self, start: Tensor, whole: bool) -> None:
        """Check that the target reads the start tokens (N, T) after the last layer; the flags raise the error.

        Not all patches are read, and ``whole`` is false, where their maximum is.
        """
        prefix = self.forward_pass.grid.prefix_tokens(self.forward_pass.tokens)
        read, begins = self.read, start[0].to(self.read.device) > 0
        unread = begins[:prefix] & ~read[:prefix]
        patches = read[prefix:]
        patches_unread = begins[prefix:].any() & ~(patches.all() if whole else patches.any())
        is_other = (read & ~begins).any() | unread.any() | patches_unread

        def error() -> RuntimeError:
            return RuntimeError(
                f"target must read {_describe_tokens(begins, prefix)} after the last layer, but reads "
                f"{_describe_tokens(read, prefix)}. Pass tokens=, where relevance begins."
            )

        self.flags.must_hold(~(read.any() & is_other), error)

    def has_gradient(self) -> list[Tensor]:
        """Return flags, one for each layer and part: whether all examples have any gradient."""
        return flag_each(self.largest, lambda largest: (largest > 0).any(-1).all(-1))

    def result(self) -> tuple[Tensor, Importance | None]:
        """Return relevance (N, T), and head importance, first layer first, if the rule weighs heads."""
        relevance = self.relevance / len(self.importance) if self.rule.layerwise else self.relevance
        layers = [[part for part in parts if part is not None] for _, parts in sorted(self.importance.items())]
        if not layers[0]:
            return relevance, None
        joined = (parts[0] if len(parts) == 1 else torch.cat(parts) for parts in layers)
        return relevance, [importance.to(relevance.device) for importance in joined]


def _largest(gradient: Tensor) -> Tensor:
    """Return the largest magnitude of each token's numbers: (N, H, T, D) → (N, T)"""
    if gradient.device.type == "cpu":  # where the norm of strided numbers takes ten times as long
        return gradient.abs().amax((1, 3))
    magnitude: Tensor = torch.linalg.vector_norm(gradient, math.inf, dim=(1, 3))  # one operation
    return magnitude


def _describe_tokens(tokens: Tensor, prefix: int | None) -> str:
    """Return marked tokens (T,) in words."""
    names = [f"token {index}" for index in tokens[:prefix].nonzero().flatten().tolist()]
    if tokens[prefix:].any():
        names.append("the patches" if tokens[prefix:].all() else "some patches")
    return " and ".join(names)
