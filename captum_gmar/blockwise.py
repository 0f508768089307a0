"""Attention in blocks of query rows: computed again where it is looked at, so that no T×T matrix has to exist whole.

``attention`` is ``F.scaled_dot_product_attention`` whose backward hands out its layer's blocks with their gradient.

Letters in shapes: N examples, H heads, T tokens, D head dimension, R query rows of a block; n examples of a part.
"""

from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

# A block holds as many examples as fit these elements with all their query rows, or else some rows of one example.
BLOCK_ELEMENTS = {"cpu": 1 << 19, "cuda": 1 << 25}
MIN_BLOCK_ROWS = 128


class Layer(NamedTuple):
    """What the attention of a layer is computed from."""

    query: Tensor  # (N, H, T, D)
    key: Tensor  # (N, H, T, D)
    mask: Tensor | None  # boolean or additive, broadcastable to (N, H, T, T)
    scale: float | None

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(N, H, T, T)"""
        examples, heads, tokens, _ = self.query.shape
        return examples, heads, tokens, self.key.shape[-2]

    def part(self, examples: slice) -> "Layer":
        mask = None if self.mask is None else self.mask.expand(self.shape)[examples]
        return Layer(self.query[examples], self.key[examples], mask, self.scale)


OnBlocks = Callable[[slice, "GradientBlocks"], None]


def attention(
    layer: Layer, value: Tensor, anchor: Tensor, on_blocks: OnBlocks, goes_on: Callable[[], bool] = lambda: True
) -> Tensor:
    """``F.scaled_dot_product_attention`` that hands out its blocks in backward.

    Args:
        layer: query, key, mask and scale.
        value: (N, H, T, D)
        anchor: a tensor that requires grad and receives zero: autograd comes here even if nothing else asks for it.
        on_blocks: called in backward with a slice of the examples and their blocks, for every part of the examples in
            turn. It may go over the blocks any number of times, also none.
        goes_on: called in backward: whether the gradients of query, key, value and mask are wanted.
    """
    query, key, mask, scale = layer
    attended: Tensor = _Attention.apply(query, key, value, mask, scale, anchor, on_blocks, goes_on)  # type: ignore[no-untyped-call]
    return attended


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Tensor | None,
        scale: float | None,
        anchor: Tensor,
        on_blocks: OnBlocks,
        goes_on: Callable[[], bool],
    ) -> Tensor:
        output = F.scaled_dot_product_attention(query, key, value, mask, scale=scale)
        ctx.save_for_backward(query, key, value, mask, output)
        ctx.scale, ctx.on_blocks, ctx.goes_on = scale, on_blocks, goes_on
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, mask, output = ctx.saved_tensors
        layer = Layer(query, key, mask, ctx.scale)
        goes_on = ctx.goes_on()
        needs_grad = goes_on and any(ctx.needs_input_grad[:4])
        grads = [torch.empty_like(t) if needs_grad else None for t in (query, key, value)]
        grad_scores = grad_output.new_empty(layer.shape) if goes_on and ctx.needs_input_grad[3] else None
        scratch = Scratch(layer, matrices=2)
        with torch.autocast(query.device.type, enabled=False):
            for part in scratch.parts():
                blocks = GradientBlocks(
                    layer.part(part),
                    scratch,
                    value=value[part],
                    output=output[part],
                    grad_output=grad_output[part],
                    grads=[None if t is None else t[part] for t in (*grads, grad_scores)],
                )
                ctx.on_blocks(part, blocks)
                blocks.finish()
        grad_mask = None if grad_scores is None else grad_scores.sum_to_size(mask.shape)
        return (*grads, grad_mask, None, torch.zeros(()), None, None)


class Scratch:
    """Memory for one block of a layer, which its blocks share."""

    def __init__(self, layer: Layer, matrices: int) -> None:
        self.examples, heads, tokens, _ = layer.shape
        device = layer.query.device
        elements = BLOCK_ELEMENTS.get(device.type, BLOCK_ELEMENTS["cuda"])
        self.step = min(max(1, elements // (heads * tokens**2)), self.examples)
        self.rows = min(max(MIN_BLOCK_ROWS, elements // (heads * tokens)), tokens)
        precision = torch.promote_types(layer.query.dtype, torch.float32)
        self.memory = torch.empty(
            matrices, self.step * heads * self.rows * tokens, dtype=precision, device=device
        )  # one row for each matrix

    def parts(self) -> Iterator[slice]:
        """The examples, as many at a time as a block holds."""
        for start in range(0, self.examples, self.step):
            yield slice(start, min(start + self.step, self.examples))

    def view(self, matrix: int, shape: tuple[int, int, int]) -> Tensor:
        return self.memory[matrix, : shape[0] * shape[1] * shape[2]].view(shape)


class Block:
    """Some query rows of a layer. Its matrices are computed when first read, in memory that the next block takes."""

    def __init__(self, blocks: "AttentionBlocks", rows: slice) -> None:
        self._blocks = blocks
        self.rows = rows  # of the T query tokens

    @cached_property
    def attention(self) -> Tensor:
        """(n, H, R, T)"""
        return self._blocks.attention(self.rows)

    @cached_property
    def gradient(self) -> Tensor:
        """(n, H, R, T)"""
        return self._blocks.gradient(self.rows)

    @property
    def attention_was_read(self) -> bool:
        return "attention" in vars(self)


class AttentionBlocks:
    """Some examples of a layer, as blocks of query rows."""

    def __init__(self, layer: Layer, scratch: Scratch) -> None:
        self.scale = layer.query.shape[-1] ** -0.5 if layer.scale is None else layer.scale
        self.shape = layer.query.shape[:-1]  # (n, H, T)
        self.query, self.key, self.mask = _flat(layer.query) * self.scale, _flat(layer.key), layer.mask
        self.scratch = scratch

    def __iter__(self) -> Iterator[Block]:
        tokens = self.shape[-1]
        for start in range(0, tokens, self.scratch.rows):
            yield Block(self, slice(start, min(start + self.scratch.rows, tokens)))

    def attention(self, rows: slice) -> Tensor:
        scores = self._matrix(0, rows)
        torch.bmm(self.query[:, rows], self.key.mT, out=scores)
        if self.mask is not None:
            mask, masked = self.mask[:, :, rows], self._by_head(scores)
            if mask.dtype == torch.bool:
                masked.masked_fill_(~mask, -torch.inf)
            else:
                masked += mask
        attention = self._by_head(torch.softmax(scores, -1, out=scores))
        if self.mask is not None:  # a query that may look nowhere gets nothing, as torch has it
            attention.masked_fill_(_is_nowhere(self.mask[:, :, rows]), 0)
        return attention

    def gradient(self, rows: slice) -> Tensor:
        raise RuntimeError("No gradient: these blocks were not met on the way back.")

    def _matrix(self, matrix: int, rows: slice) -> Tensor:
        """(nH, R, T)"""
        return self.scratch.view(matrix, (len(self.query), rows.stop - rows.start, self.shape[-1]))

    def _by_head(self, matrix: Tensor) -> Tensor:
        """(nH, R, T) → (n, H, R, T)"""
        return matrix.view(*self.shape[:2], *matrix.shape[1:])


class GradientBlocks(AttentionBlocks):
    """Some examples of a layer on the way back; reading the attention of all blocks gathers the gradients as well."""

    def __init__(
        self,
        layer: Layer,
        scratch: Scratch,
        *,
        value: Tensor,
        output: Tensor,
        grad_output: Tensor,
        grads: list[Tensor | None],
    ) -> None:
        super().__init__(layer, scratch)
        self.value, self.grad_output, self.grads = _flat(value), _flat(grad_output), grads
        self.gathered = grads[0] is None
        self.sums: tuple[Tensor, ...] = ()
        self.whole = Block(self, slice(0, self.shape[-1])) if scratch.rows == self.shape[-1] else None
        if not self.gathered:
            self.delta = (self.grad_output * _flat(output)).sum(-1, keepdim=True)  # (nH, T, 1)
            self.sums = tuple(torch.empty_like(t) for t in (self.query, self.key, self.value))

    def __iter__(self) -> Iterator[Block]:
        if self.whole is not None:  # stays valid, so it is gathered at the end
            yield self.whole
            return
        gathered = []
        for block in super().__iter__():
            yield block
            gathered.append(not self.gathered and block.attention_was_read)
            if gathered[-1]:
                self._gather(block)
        self.gathered = self.gathered or all(gathered)

    def gradient(self, rows: slice) -> Tensor:
        gradient = self._matrix(1, rows)
        return self._by_head(torch.bmm(self.grad_output[:, rows], self.value.mT, out=gradient))

    def _gather(self, block: Block) -> None:
        """Adds the block's part of dQ, dK and dV. The gradient of the scores takes the place of the attention's."""
        grad_query, grad_key, grad_value = self.sums
        rows, attention, gradient = block.rows, block.attention.flatten(0, 1), block.gradient.flatten(0, 1)
        beta = 0 if rows.start == 0 else 1
        torch.baddbmm(grad_value, attention.mT, self.grad_output[:, rows], beta=beta, out=grad_value)
        grad_scores = gradient.sub_(self.delta[:, rows]).mul_(attention)
        row_grads = grad_query[:, rows]
        torch.baddbmm(row_grads, grad_scores, self.key, beta=0, alpha=self.scale, out=row_grads)
        torch.baddbmm(grad_key, grad_scores.mT, self.query[:, rows], beta=beta, out=grad_key)
        if self.grads[3] is not None:
            self.grads[3][:, :, rows] = self._by_head(grad_scores)

    def finish(self) -> None:
        """Hands the gradients over, gathering them first unless all blocks were."""
        if not self.gathered:
            for block in [self.whole] if self.whole is not None else super().__iter__():
                self._gather(block)
        for grad, total in zip(self.grads, self.sums, strict=False):
            if grad is not None:
                grad.copy_(total.view(grad.shape))
        self.whole = None  # else the two would keep each other, and the scratch memory


def _is_nowhere(mask: Tensor) -> Tensor:
    """Of which queries the mask hides all keys (n, H, R, 1)."""
    if mask.dtype == torch.bool:
        return ~mask.any(-1, keepdim=True)
    return mask.amax(-1, keepdim=True) == -torch.inf


def _flat(tensor: Tensor) -> Tensor:
    """(n, H, T, D) → (nH, T, D), in at least single precision."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32)).flatten(0, 1).contiguous()
