"""Attention in blocks of query rows: computed again where it is looked at, so that no T×T matrix has to exist whole.

``attention`` is ``F.scaled_dot_product_attention`` whose backward hands out its layer's blocks with their gradient.

Letters in shapes: N examples, H heads, T tokens, D head dimension.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from captum_gmar.engine.kernels.blocks import GradientBlocks
from captum_gmar.engine.kernels.layer import Layer, some
from captum_gmar.engine.kernels.logsumexp import attention_and_log_sums
from captum_gmar.engine.kernels.precision import without_autocast
from captum_gmar.engine.kernels.workspace import Scratch, Workspace

OnBlocks = Callable[[slice, "GradientBlocks"], None]


@dataclass(eq=False)
class Handout:
    """What becomes of a layer's blocks in backward. It may be said after the pass forward.

    Attributes:
        anchor: a scalar that requires grad and receives zero: autograd comes here even if nothing else asks for it.
        workspace: for backward; layers may share one.
        on_blocks: called in backward with a slice of the examples and their blocks, for every part of the examples in
            turn. It may go over the blocks any number of times, also none.
        goes_on: whether the gradients of query, key, value and mask are wanted.
    """

    anchor: Tensor
    workspace: Workspace = field(default_factory=Workspace)
    on_blocks: OnBlocks | None = None
    goes_on: bool = True
    lse: Tensor | None = None  # of the layer, as Layer has it, if torch's attention tells it


def attention(layer: Layer, value: Tensor, handout: Handout) -> Tensor:
    """``F.scaled_dot_product_attention`` of a layer and its value (N, H, T, D), which hands out blocks in backward."""
    tensors = layer.query, layer.key, layer.mask, value, handout.anchor
    attended: Tensor = _Attention.apply(*tensors, layer.scale, handout)  # type: ignore[no-untyped-call]
    return attended


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        mask: Tensor | None,
        value: Tensor,
        anchor: Tensor,
        scale: float | None,
        handout: Handout,
    ) -> Tensor:
        output, handout.lse = attention_and_log_sums(query, key, value, mask, scale)
        ctx.save_for_backward(query, key, mask, value, output)
        ctx.scale, ctx.handout = scale, handout
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        query, key, mask, value, output = ctx.saved_tensors
        layer = Layer(query, key, mask, ctx.scale)
        handout: Handout = ctx.handout
        goes_on = handout.goes_on
        needs_grad = goes_on and any(ctx.needs_input_grad[:4])
        grads = [torch.empty_like(t) if needs_grad else None for t in (query, key, value)]
        grad_scores = grad_output.new_empty(layer.shape) if goes_on and ctx.needs_input_grad[2] else None
        scratch = Scratch(layer, handout.workspace)
        with handout.workspace.lock, without_autocast(query.device.type):
            for part in scratch.parts():
                blocks = GradientBlocks(
                    layer.part(part),
                    scratch,
                    value=some(value, part),
                    output=some(output, part),
                    grad_output=some(grad_output, part),
                    grads=[None if t is None else some(t, part) for t in (*grads, grad_scores)],
                )
                if handout.on_blocks is not None:
                    handout.on_blocks(part, blocks)
                blocks.finish()
        grad_mask = None if grad_scores is None else grad_scores.sum_to_size(mask.shape)
        return *grads[:2], grad_mask, grads[2], handout.anchor.detach(), None, None
