"""A layer's attention and its gradient, as blocks of query rows that are computed where they are read.

Letters in shapes: N examples, H heads, T tokens, D head dimension, R query rows of a block; n examples of a part.
"""

import math
from collections.abc import Iterator
from copy import copy
from functools import cached_property
from typing import Self

import torch
from torch import Tensor

from captum_gmar.engine.kernels.layer import (
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
)
from captum_gmar.engine.kernels.workspace import Scratch, Workspace


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
        scores, attention = self._matrix(0, rows), self.spare(0, rows)  # the same memory
        torch.baddbmm(scores, slice_rows(self.query, rows), self.key.mT, beta=0, alpha=self.scale, out=scores)
        if self.mask is not None:
            mask = self.mask[:, :, rows]
            if mask.dtype == torch.bool:
                attention.masked_fill_(~mask, -torch.inf)
            else:
                attention += mask
        torch.softmax(scores, -1, out=scores)
        if self.mask is not None:  # fully masked queries attend to nothing, as in torch
            attention.masked_fill_(_is_nowhere(self.mask[:, :, rows]), 0)
        return attention

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


def gradient_blocks(layer: LayerGradient) -> Iterator[tuple[slice, GradientBlocks]]:
    """Yield as many examples at a time as a block holds; no gradient is gathered."""
    part = AttentionLayer(layer.query, layer.key, layer.mask, layer.scale)
    scratch = Scratch(part, Workspace(), block_dtype(layer.query))
    for examples in scratch.parts():
        value, grad_output = layer.value[examples], layer.grad_output[examples]
        blocks = GradientBlocks(
            part.part(examples), scratch, value=value, output=None, grad_output=grad_output, grads=[None] * 4
        )
        yield examples, blocks
        blocks.whole = None  # else the two would keep each other, and the scratch memory


def read_in_blocks(layer: LayerGradient, reduction: Reduction) -> HeadSums:
    """Compute any reduction of any layer, in blocks of query rows whose attention and gradient are computed again."""
    is_positive = reduction._replace(row=None) == Reduction(matrix="positive")
    if reduction.row is not None and is_positive and block_dtype(layer.query).itemsize < 4:
        return _read_positive(layer, reduction.row)
    parts = []
    for examples, blocks in gradient_blocks(layer):
        row = None if reduction.row is None else reduction.row[examples]
        parts.append(read_blocks(blocks, reduction._replace(row=row)))
    return join_sums(parts, dim=0)


def _read_positive(layer: LayerGradient, row: Tensor) -> HeadSums:
    """Compute r·(A ⊙ G)⁺ with r, never negative, in the gradient of the output: a block is read fewer times."""
    weighted = (layer.grad_output * row[:, None, :, None]).to(layer.grad_output.dtype)
    parts = []
    for _, blocks in gradient_blocks(layer._replace(grad_output=weighted)):
        head_row = [sum_up([positive_sum(product(block), -2) for block in heads]) for heads in blocks.heads_apart()]
        parts.append(torch.cat(head_row, 1))
    return HeadSums(torch.cat(parts))
