"""Attention in blocks of query rows, computed again in the backward pass, so that no T×T matrix has to exist whole.

Letters in shapes: N examples, H heads, T tokens, D head dimension.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from captum_gmar.engine.kernels.blocks import GradientBlocks
from captum_gmar.engine.kernels.fused import attention_and_log_sums
from captum_gmar.engine.kernels.layer import AttentionLayer, LayerTap, slice_examples
from captum_gmar.engine.kernels.precision import without_autocast
from captum_gmar.engine.kernels.workspace import Scratch, Workspace


@dataclass(eq=False)
class BlocksTap(LayerTap):
    """A layer whose blocks a listener receives; it may iterate over the blocks any number of times, also none."""

    workspace: Workspace = field(default_factory=Workspace)

    def attend(self, layer: AttentionLayer, value: Tensor) -> Tensor:
        """Compute ``F.scaled_dot_product_attention``."""
        tensors = layer.query, layer.key, layer.mask, value, self.edge
        attended: Tensor = _Attention.apply(*tensors, layer.scale, self)  # type: ignore[no-untyped-call]
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
        tap: BlocksTap,
    ) -> Tensor:
        output, tap.lse = attention_and_log_sums(query, key, value, mask, scale)
        ctx.save_for_backward(query, key, mask, value, output)
        ctx.scale, ctx.tap = scale, tap
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        query, key, mask, value, output = ctx.saved_tensors
        layer = AttentionLayer(query, key, mask, ctx.scale)
        tap: BlocksTap = ctx.tap
        goes_on = tap.goes_on
        needs_grad = goes_on and any(ctx.needs_input_grad[:4])
        grads = [torch.empty_like(t) if needs_grad else None for t in (query, key, value)]
        grad_scores = grad_output.new_empty(layer.shape) if goes_on and ctx.needs_input_grad[2] else None
        scratch = Scratch(layer, tap.workspace)
        with tap.workspace.lock, without_autocast(query.device.type):
            for part in scratch.parts():
                blocks = GradientBlocks(
                    layer.part(part),
                    scratch,
                    value=slice_examples(value, part),
                    output=slice_examples(output, part),
                    grad_output=slice_examples(grad_output, part),
                    grads=[None if t is None else slice_examples(t, part) for t in (*grads, grad_scores)],
                )
                if tap.listener is not None:
                    tap.listener.on_blocks(tap.number, part, blocks)
                blocks.finish()
        grad_mask = None if grad_scores is None else grad_scores.sum_to_size(mask.shape)
        return *grads[:2], grad_mask, grads[2], tap.edge.detach(), None, None
