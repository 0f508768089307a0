"""A layer's attention and its gradient, as blocks of query rows that are computed where they are read.

Letters in shapes: N examples, H heads, T tokens, D head dimension, R query rows of a block; n examples of a part.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from copy import copy
from functools import cached_property
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor

from captum_gmar.engine.kernels.layer import (
    CHANNELS_MORE,
    AttentionLayer,
    LayerGradient,
    flatten_heads,
    iterate_slices,
    resolve_scale,
    slice_rows,
)
from captum_gmar.engine.kernels.precision import block_dtype
from captum_gmar.engine.kernels.reduction import (
    HeadSums,
    Reduction,
    join_sums,
    positive_sum,
    product,
    read_blocks,
    sum_up,
    wide_sum,
)
from captum_gmar.engine.kernels.workspace import Scratch, Workspace

LARGE_ELEMENTS = 1 << 21  # of a head's matrix, from which a product by itself takes less time than a pass over it


class RowBlock:
    """Some query rows of a layer. Its matrices are computed when first read, in memory that the next block takes."""

    def __init__(self, blocks: "AttentionBlocks", rows: slice) -> None:
        self._blocks = blocks
        self.rows = rows  # of the T query tokens

    @cached_property
    def attention(self) -> Tensor:
        """A (n, H, R, T)"""
        return self._blocks.attention(self.rows)

    @cached_property
    def gradient(self) -> Tensor:
        """G (n, H, R, T)"""
        return self._blocks.gradient(self.rows)

    @property
    def spare(self) -> Tensor:
        """Memory (n, H, R, T) of the attention, or free memory if that has been read."""
        return self._blocks.spare(2 if self.attention_was_read else 0, self.rows)

    @property
    def attention_was_read(self) -> bool:
        """State of the attention: whether it was computed."""
        return "attention" in vars(self)


class AttentionBlocks:
    """Some examples of a layer, as blocks of query rows."""

    def __init__(self, layer: AttentionLayer, scratch: Scratch) -> None:
        self.scale = resolve_scale(layer.query, layer.scale)
        self.shape = layer.query.shape[:-1]  # (n, H, T)
        precision = scratch.like.dtype
        self.query, self.key = flatten_heads(layer.query, precision), flatten_heads(layer.key, precision)
        self.mask = layer.mask
        self.scratch = scratch
        self.queries = self.shape[-1]
        self.rows = scratch.rows  # of a block, or less

    def keep_first(self, queries: int) -> None:
        """Leave out all query rows but the first, as the others give nothing."""
        self.queries = queries

    def __iter__(self) -> Iterator[RowBlock]:
        blocks = math.ceil(self.queries / self.rows)
        for rows in iterate_slices(self.queries, math.ceil(self.queries / blocks)):  # of nearly one size
            yield RowBlock(self, rows)

    def heads_apart(self) -> Iterator[Self]:
        """Yield some heads after the others, in blocks that take less time."""
        if self.queries <= self.rows:
            yield self
            return
        for heads in self.scratch.groups():
            yield self._only(heads)

    def _only(self, heads: slice) -> Self:
        """Return blocks of some heads of one example."""
        only = copy(self)
        only.rows = self.scratch.rows_apart
        only.query, only.key = self.query[heads], self.key[heads]
        only.mask = None if self.mask is None else self.mask[:, heads]
        only.shape = self.shape[:1] + only.query.shape[:-1]
        return only

    def attention(self, rows: slice) -> Tensor:
        """Compute A (n, H, R, T) of some query rows."""
        attention = self.scores(rows)
        if self.mask is not None:
            mask = self.mask[:, :, rows]
            if mask.dtype == torch.bool:
                attention.masked_fill_(~mask, -torch.inf)
            else:
                attention += mask
        torch.softmax(attention, -1, out=attention)
        if self.mask is not None:  # fully masked queries attend to nothing, as in torch
            attention.masked_fill_(_is_nowhere(self.mask[:, :, rows]), 0)
        return attention

    def scores(self, rows: slice) -> Tensor:
        """Compute S (n, H, R, T) of some query rows, without a mask."""
        scores = self._matrix(0, rows)
        torch.baddbmm(scores, slice_rows(self.query, rows), self.key.mT, beta=0, alpha=self.scale, out=scores)
        return self.spare(0, rows)

    def gradient(self, rows: slice) -> Tensor:
        """Refuse the call, as only layers in a backward pass have a gradient."""
        raise RuntimeError(
            "attention gradient requires a backward pass, but these layers had none. Call backward() on the output of "
            "the recorded pass."
        )

    def spare(self, matrix: int, rows: slice) -> Tensor:
        """Return memory (n, H, R, T), that of one of the matrices."""
        return self.scratch.view(matrix, (*self.shape[:2], rows.stop - rows.start, self.shape[-1]))

    def _matrix(self, matrix: int, rows: slice) -> Tensor:
        """Return the same memory as (nH, R, T)."""
        return self.scratch.view(matrix, (len(self.query), rows.stop - rows.start, self.shape[-1]))


class GradientBlocks(AttentionBlocks):
    """Some examples of a layer in the backward pass; reading the attention of all blocks gathers the gradients too."""

    def __init__(
        self,
        layer: AttentionLayer,
        scratch: Scratch,
        *,
        value: Tensor,
        output: Tensor | None,  # not needed where no gradient is wanted
        grad_output: Tensor,
        grads: list[Tensor | None],
    ) -> None:
        super().__init__(layer, scratch)
        precision = scratch.like.dtype
        self.value, self.grad_output = flatten_heads(value, precision), flatten_heads(grad_output, precision)
        self.grads = grads
        self.gathered = grads[0] is None or output is None
        self.apart = False  # whether these are some heads of the layer's
        self.whole: RowBlock | None = None  # all rows, if one block holds them
        self.sums: list[Tensor] = []
        if output is not None and not self.gathered:
            factors = self.query, self.key, self.value
            if self._sums_are_grads():
                self.sums = [grad[0] for grad in grads[:3] if grad is not None]
            else:
                self.sums = [scratch.workspace.take(f"sums {place}", (*t.shape,), t) for place, t in enumerate(factors)]
            # The memory of the value's sums is not in use before the first block.
            products = torch.mul(self.grad_output, flatten_heads(output, precision), out=self.sums[2])
            self.delta = products.sum(-1, keepdim=True)  # (nH, T, 1)

    def _sums_are_grads(self) -> bool:
        """Return whether sums are taken in their final place: not for several blocks, which are quicker elsewhere."""
        grad = self.grads[0]
        is_one_block = self.shape[0] == 1 and self.shape[-1] <= self.rows
        return bool(grad is not None and is_one_block and grad.dtype == self.query.dtype)

    def __iter__(self) -> Iterator[RowBlock]:
        if not self.apart and self.queries <= self.rows:  # stays valid, so it is gathered at the end
            self.whole = self.whole or RowBlock(self, slice(0, self.queries))
            yield self.whole
            return
        gathered = []
        for block in super().__iter__():
            yield block
            gathered.append(not self.gathered and (self.apart or block.attention_was_read))
            if gathered[-1]:
                self._gather(block)
        self.gathered = self.gathered or all(gathered)

    def heads_apart(self) -> Iterator[Self]:
        """Yield some heads after the others; gather their gradients, whatever is read of them."""
        for heads in super().heads_apart():
            yield heads
            if heads.apart:
                heads._gather_all()
        self.gathered = self.gathered or heads.apart

    def _only(self, heads: slice) -> Self:
        only = super()._only(heads)
        only.apart = True
        only.value, only.grad_output = self.value[heads], self.grad_output[heads]
        only.grads = [None if grad is None else grad[:, heads] for grad in self.grads]
        if self.sums:
            only.delta, only.sums = self.delta[heads], [total[heads] for total in self.sums]
        return only

    def gradient(self, rows: slice) -> Tensor:
        """Compute G (n, H, R, T) of some query rows."""
        torch.bmm(slice_rows(self.grad_output, rows), self.value.mT, out=self._matrix(1, rows))
        return self.spare(1, rows)

    def positive_gradient(self, rows: slice) -> Tensor:
        """Compute G⁺ (n, H, R, T) of some query rows, a head at a time: without a pass over G."""
        heads = zip(slice_rows(self.grad_output, rows), self.value, self._matrix(1, rows), strict=True)
        for grad_output, value, gradient in heads:
            torch._addmm_activation(self.scratch.zeros, grad_output, value.mT, out=gradient)
        return self.spare(1, rows)

    def positive_product(self, rows: slice) -> Tensor:
        """Compute exp(S) ⊙ G⁺ in one operation, the gradient of an ELU, of scores that are zero or less."""
        gradient, scores = self.positive_gradient(rows), self.scores(rows)
        torch.ops.aten.elu_backward.grad_input(gradient, 1, 1, 1, False, scores, grad_input=scores)
        return scores

    def _gather(self, block: RowBlock) -> None:
        """Add the block's part of dQ, dK and dV. The gradient of the scores takes the place of the attention's."""
        grad_query, grad_key, grad_value = self.sums
        _ = block.attention, block.gradient  # which are computed, if they are not yet
        rows, attention, gradient = block.rows, self._matrix(0, block.rows), self._matrix(1, block.rows)
        beta = 0 if rows.start == 0 else 1
        grad_output, query = slice_rows(self.grad_output, rows), slice_rows(self.query, rows)
        torch.baddbmm(grad_value, attention.mT, grad_output, beta=beta, out=grad_value)
        grad_scores = gradient.sub_(slice_rows(self.delta, rows)).mul_(attention)
        row_grads = slice_rows(grad_query, rows)
        torch.baddbmm(row_grads, grad_scores, self.key, beta=0, alpha=self.scale, out=row_grads)
        torch.baddbmm(grad_key, grad_scores.mT, query, beta=beta, alpha=self.scale, out=grad_key)
        if self.grads[3] is not None:
            self.grads[3][:, :, rows] = self.spare(1, rows)

    def _gather_all(self) -> None:
        if not self.gathered:
            for block in [self.whole] if self.whole is not None else super().__iter__():
                self._gather(block)
        self.gathered = True

    def finish(self) -> None:
        """Write the gradients of query, key and value, gathering them first unless all blocks were."""
        self._gather_all()
        for grad, total in zip(() if self._sums_are_grads() else self.grads, self.sums, strict=False):
            if grad is not None:
                grad.copy_(total.view(grad.shape))
        for grad in (self.grads[0], self.grads[3]):
            if grad is not None and self.queries < self.shape[-1]:
                grad[:, :, self.queries :] = 0
        self.whole = None  # else the two would keep each other, and the scratch memory


def _is_nowhere(mask: Tensor) -> Tensor:
    """Return the queries whose keys a mask all hides (n, H, R, 1)."""
    if mask.dtype == torch.bool:
        return ~mask.any(-1, keepdim=True)
    return mask.amax(-1, keepdim=True) == -torch.inf


def attention_blocks(layer: AttentionLayer) -> Iterator[tuple[slice, AttentionBlocks]]:
    """Yield as many examples at a time as a block holds."""
    scratch = Scratch(layer)
    for examples in scratch.parts():
        yield examples, AttentionBlocks(layer.part(examples), scratch)


def gradient_blocks(layer: LayerGradient, matrices: int = 3) -> Iterator[tuple[slice, GradientBlocks]]:
    """Yield as many examples at a time as a block of so many matrices holds; no gradient is gathered."""
    part = AttentionLayer(layer.query, layer.key, layer.mask, layer.scale)
    scratch = Scratch(part, Workspace(), block_dtype(layer.query), matrices)
    for examples in scratch.parts():
        value, grad_output = layer.value[examples], layer.grad_output[examples]
        blocks = GradientBlocks(
            part.part(examples), scratch, value=value, output=None, grad_output=grad_output, grads=[None] * 4
        )
        yield examples, blocks
        blocks.whole = None  # else the two would keep each other, and the scratch memory


def read_in_blocks(layer: LayerGradient, reduction: Reduction) -> HeadSums:
    """Compute any reduction of any layer, in blocks of query rows whose attention and gradient are computed again."""
    row, is_positive = reduction.row, reduction._replace(row=None) == Reduction(matrix="positive")
    if is_large(layer) and reduction == Reduction(norm="positive"):
        parts = gradient_blocks(layer, matrices=2)
        return HeadSums(norms=_sum_heads(parts, lambda heads, rows: wide_sum(heads.positive_gradient(rows), (-2, -1))))
    if row is not None and is_positive and is_large(layer):
        parts = _shifted_blocks(layer, row[:, None])
        return HeadSums(_sum_heads(parts, lambda heads, rows: wide_sum(heads.positive_product(rows), -2)))
    if row is not None and is_positive and block_dtype(layer.query).itemsize < 4:
        return _read_positive(layer, row)
    sums = []
    for examples, blocks in gradient_blocks(layer):
        sums.append(read_blocks(blocks, reduction._replace(row=None if row is None else row[examples])))
    return join_sums(sums, dim=0)


def _read_positive(layer: LayerGradient, row: Tensor) -> HeadSums:
    """Compute r·(A ⊙ G)⁺ with r, never negative, in the gradient of the output: a block is read fewer times."""
    parts = gradient_blocks(_weigh_rows(layer, row[:, None]))
    return HeadSums(_sum_heads(parts, lambda heads, rows: positive_sum(product(RowBlock(heads, rows)), -2)))


def _weigh_rows(layer: LayerGradient, weights: Tensor) -> LayerGradient:
    gradient = layer.grad_output
    return layer._replace(grad_output=(gradient * weights[..., None]).to(gradient.dtype))


def is_large(layer: LayerGradient) -> bool:
    """Return whether (A ⊙ G)⁺ of a head takes less time by log sums, which torch kept, and products of their own."""
    is_half = block_dtype(layer.query).itemsize < 4
    return layer.lse is not None and is_half and layer.query.shape[-2] * layer.key.shape[-2] >= LARGE_ELEMENTS


def fused_positive(layer: LayerGradient, weights: Tensor) -> Iterator[tuple[slice, Iterator[tuple[slice, Tensor]]]]:
    """Yield some examples of a large layer with Σ_h w_h (A ⊙ G)⁺ (n, R, T) of their rows, by weights (N, H)."""
    for examples, blocks in _shifted_blocks(layer, weights[..., None]):
        yield examples, ((block.rows, wide_sum(blocks.positive_product(block.rows), 1)) for block in blocks)


def _sum_heads(
    parts: Iterable[tuple[slice, GradientBlocks]], read: Callable[[GradientBlocks, slice], Tensor]
) -> Tensor:
    """Sum what is read of some heads and rows over the rows: (N, H, ...)"""
    examples = (
        torch.cat([sum_up([read(heads, block.rows) for block in heads]) for heads in blocks.heads_apart()], 1)
        for _, blocks in parts
    )
    return torch.cat([*examples])


def _shifted_blocks(layer: LayerGradient, weights: Tensor) -> Iterator[tuple[slice, GradientBlocks]]:
    """Yield blocks whose product is w (A ⊙ G)⁺, of weights (N, H, T) that are not negative.

    Scores are S − m, zero or less, by a channel of the queries; G holds w exp(m − log Σ exp S). As half precision
    rounds S − m, m is no larger than it must be.
    """
    assert layer.lse is not None
    size, lse = layer.query.shape[-1], layer.lse
    lengths, longest = (torch.linalg.vector_norm(t, dim=-1, dtype=lse.dtype) for t in (layer.query, layer.key))
    largest = torch.minimum(lengths * longest.amax(-1, keepdim=True) * abs(layer.scale), lse)
    channel = ((largest + largest.abs() / 64) / -layer.scale).to(layer.query.dtype)  # which is rounded
    query, key = F.pad(layer.query, (0, CHANNELS_MORE)), F.pad(layer.key, (0, CHANNELS_MORE), value=1.0)
    query[..., size] = channel
    weights = weights * (channel.to(lse) * -layer.scale - lse).exp_()
    return gradient_blocks(_weigh_rows(layer, weights)._replace(query=query, key=key), matrices=2)
