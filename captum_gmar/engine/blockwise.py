"""Attention in blocks of query rows: computed again where it is looked at, so that no T×T matrix has to exist whole.

``attention`` is ``F.scaled_dot_product_attention`` whose backward hands out its layer's blocks with their gradient.

Letters in shapes: N examples, H heads, T tokens, D head dimension, R query rows of a block; n examples of a part.
"""

import math
import threading
from collections.abc import Callable, Iterator
from copy import copy
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from captum_gmar.engine.log_sums import attention_and_log_sums
from captum_gmar.engine.precision import of_sums, without_autocast

# A block holds as many examples as fit these elements with all their query rows, or else some rows of one example.
BLOCK_ELEMENTS = {"cpu": 1 << 19, "cuda": 1 << 25}
MIN_BLOCK_ROWS = 128
# A block of heads gone over apart. On CPU, fewer elements mean that key and value are read and their gradients added up
# more often, and more of them that a block leaves the cache before it has been used.
ELEMENTS_APART = {"cpu": 9 << 18, "cuda": 1 << 25}
ELEMENTS_READ = {
    "cpu": 9 << 16,
    "cuda": 1 << 25,
}  # of heads apart of which no gradient is gathered: they stay in the cache


class Layer(NamedTuple):
    """What the attention of a layer is computed from."""

    query: Tensor  # (N, H, T, D)
    key: Tensor  # (N, H, T, D)
    mask: Tensor | None  # boolean or additive, broadcastable to (N, H, T, T)
    scale: float | None
    lse: Tensor | None = None  # (N, H, T), log Σ exp of each query's scores, if it is known

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(N, H, T, T)"""
        examples, heads, tokens, _ = self.query.shape
        return examples, heads, tokens, self.key.shape[-2]

    def part(self, examples: slice) -> "Layer":
        """The same of some examples."""
        if is_whole(examples, len(self.query)):
            return self._replace(mask=None if self.mask is None else self.mask.expand(self.shape))
        mask = None if self.mask is None else self.mask.expand(self.shape)[examples]
        return Layer(self.query[examples], self.key[examples], mask, self.scale)

    def to(self, device: torch.device) -> "Layer":
        """The same on this device."""
        mask, lse = (None if t is None else t.to(device) for t in (self.mask, self.lse))
        return Layer(self.query.to(device), self.key.to(device), mask, self.scale, lse)


OnBlocks = Callable[[slice, "GradientBlocks"], None]


class Workspace:
    """Memory that the layers take one after the other: to get new memory each time, page by page, takes longer."""

    def __init__(self) -> None:
        self.kept: dict[str, Tensor] = {}
        self.views: dict[tuple[object, ...], Tensor] = {}  # of it, which layers of one shape ask for again
        self.lock = threading.Lock()  # of the layer that has it: devices have threads of their own in backward

    def take(self, name: str, shape: tuple[int, ...], like: Tensor, room: int = 0) -> Tensor:
        """Memory for this shape, which holds anything: what was taken under the name before is lost.

        Args:
            name: under which it is kept.
            shape: of what is returned.
            like: of the same device and precision.
            room: how many elements there are to be at least, for larger shapes to come.
        """
        place = name, shape, like.dtype, like.device, room
        if place not in self.views:
            self.views[place] = self._memory(name, max(room, math.prod(shape)), like)[: math.prod(shape)].view(shape)
        return self.views[place]

    def _memory(self, name: str, elements: int, like: Tensor) -> Tensor:
        kept = self.kept.get(name)
        if kept is None or kept.numel() < elements or (kept.dtype, kept.device) != (like.dtype, like.device):
            self.views = {place: view for place, view in self.views.items() if place[0] != name}
            kept = self.kept[name] = torch.empty(elements, dtype=like.dtype, device=like.device)
        return kept

    def clear(self) -> None:
        """Lets go of all memory."""
        self.kept, self.views = {}, {}


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


class Scratch:
    """Memory for one block of a layer, which its blocks share.

    Args:
        layer: of which the blocks are.
        workspace: from which the memory comes.
        precision: of the blocks; default: single at least.
    """

    def __init__(self, layer: Layer, workspace: Workspace | None = None, precision: torch.dtype | None = None) -> None:
        self.examples, self.heads, tokens, _ = layer.shape
        self.like = layer.query.new_empty(0, dtype=precision or of_sums(layer.query.dtype))
        self.workspace = workspace or Workspace()
        device = layer.query.device.type
        fold = 4 // min(4, self.like.element_size())  # how many more fit in the same memory
        elements = fold * BLOCK_ELEMENTS.get(device, BLOCK_ELEMENTS["cuda"])
        self.step = min(max(1, elements // (self.heads * tokens**2)), self.examples)
        self.rows = min(max(MIN_BLOCK_ROWS, elements // (self.heads * tokens)), tokens)
        elements = fold * ELEMENTS_APART.get(device, ELEMENTS_APART["cuda"])
        self.heads_apart = min(max(1, elements // tokens**2 // 2 * 2), self.heads)  # even, for two threads
        self.rows_apart = min(max(MIN_BLOCK_ROWS, elements // (self.heads_apart * tokens)), tokens)
        elements_read = fold * ELEMENTS_READ.get(device, ELEMENTS_READ["cuda"])
        self.rows_read = min(max(MIN_BLOCK_ROWS, elements_read // (self.heads_apart * tokens)), self.rows_apart)
        self.elements = max(self.step * self.heads * self.rows, self.heads_apart * self.rows_apart) * tokens

    def parts(self) -> Iterator[slice]:
        """The examples, as many at a time as a block holds."""
        return split(self.examples, self.step)

    def groups(self) -> Iterator[slice]:
        """The heads of an example, as many at a time as go together where they are gone over apart."""
        return split(self.heads, self.heads_apart)

    def view(self, matrix: int, shape: tuple[int, ...]) -> Tensor:
        """The memory of one of the matrices of a block."""
        return self.workspace.take(f"matrix {matrix}", shape, self.like, self.elements)


def split(number: int, step: int) -> Iterator[slice]:
    """Slices of so many things, ``step`` at a time."""
    for start in range(0, number, step):
        yield slice(start, min(start + step, number))


def is_whole(part: slice, number: int) -> bool:
    """Whether a slice of :func:`split` is all of so many things: then to cut is an operation for nothing."""
    return bool(part.start == 0 and part.stop == number)


def some(tensor: Tensor, part: slice) -> Tensor:
    """Of the first dimension."""
    return tensor if is_whole(part, len(tensor)) else tensor[part]


def some_rows(tensor: Tensor, rows: slice) -> Tensor:
    """Of the second dimension."""
    return tensor if is_whole(rows, tensor.shape[1]) else tensor[:, rows]


class RowBlock:
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
    def spare(self) -> Tensor:
        """(n, H, R, T) where the attention will be, or where nothing is if that has been read."""
        return self._blocks.spare(2 if self.attention_was_read else 0, self.rows)

    @property
    def attention_was_read(self) -> bool:
        """Whether the attention was computed."""
        return "attention" in vars(self)


class AttentionBlocks:
    """Some examples of a layer, as blocks of query rows."""

    def __init__(self, layer: Layer, scratch: Scratch) -> None:
        self.scale = layer.query.shape[-1] ** -0.5 if layer.scale is None else layer.scale
        self.shape = layer.query.shape[:-1]  # (n, H, T)
        precision = scratch.like.dtype
        self.query, self.key, self.mask = flat(layer.query, precision), flat(layer.key, precision), layer.mask
        self.scratch = scratch
        self.queries = self.shape[-1]
        self.rows = scratch.rows  # of a block, or less

    def keep_first(self, queries: int) -> None:
        """Leaves out all query rows but the first: those that give nothing."""
        self.queries = queries

    def __iter__(self) -> Iterator[RowBlock]:
        blocks = math.ceil(self.queries / self.rows)
        for rows in split(self.queries, math.ceil(self.queries / blocks)):  # of nearly one size
            yield RowBlock(self, rows)

    def heads_apart(self) -> Iterator[Self]:
        """Some heads after the others, in blocks that take less time."""
        if self.queries <= self.rows:
            yield self
            return
        for heads in self.scratch.groups():
            yield self._only(heads)

    def _only(self, heads: slice) -> Self:
        """Some heads of one example."""
        only = copy(self)
        only.rows = self.scratch.rows_read
        only.query, only.key = self.query[heads], self.key[heads]
        only.mask = None if self.mask is None else self.mask[:, heads]
        only.shape = self.shape[:1] + only.query.shape[:-1]
        return only

    def attention(self, rows: slice) -> Tensor:
        """A (n, H, R, T) of some query rows."""
        scores, attention = self._matrix(0, rows), self.spare(0, rows)  # the same memory
        torch.baddbmm(scores, some_rows(self.query, rows), self.key.mT, beta=0, alpha=self.scale, out=scores)
        if self.mask is not None:
            mask = self.mask[:, :, rows]
            if mask.dtype == torch.bool:
                attention.masked_fill_(~mask, -torch.inf)
            else:
                attention += mask
        torch.softmax(scores, -1, out=scores)
        if self.mask is not None:  # a query that may look nowhere gets nothing, as torch has it
            attention.masked_fill_(_is_nowhere(self.mask[:, :, rows]), 0)
        return attention

    def gradient(self, rows: slice) -> Tensor:
        """
        Raises:
            RuntimeError: as there is none without a pass backward.
        """
        raise RuntimeError("No gradient: these blocks were not met on the way back.")

    def spare(self, matrix: int, rows: slice) -> Tensor:
        """(n, H, R, T) in the memory of one of the matrices."""
        return self.scratch.view(matrix, (*self.shape[:2], rows.stop - rows.start, self.shape[-1]))

    def _matrix(self, matrix: int, rows: slice) -> Tensor:
        """(nH, R, T)"""
        return self.scratch.view(matrix, (len(self.query), rows.stop - rows.start, self.shape[-1]))


class GradientBlocks(AttentionBlocks):
    """Some examples of a layer on the way back; reading the attention of all blocks gathers the gradients as well."""

    def __init__(
        self,
        layer: Layer,
        scratch: Scratch,
        *,
        value: Tensor,
        output: Tensor | None,  # not needed where no gradient is wanted
        grad_output: Tensor,
        grads: list[Tensor | None],
    ) -> None:
        super().__init__(layer, scratch)
        precision = scratch.like.dtype
        self.value, self.grad_output, self.grads = flat(value, precision), flat(grad_output, precision), grads
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
            products = torch.mul(
                self.grad_output, flat(output, precision), out=self.sums[2]
            )  # not in use before the first block
            self.delta = products.sum(-1, keepdim=True)  # (nH, T, 1)

    def _sums_are_grads(self) -> bool:
        """Whether sums are taken where they are to go: not of several blocks, which add them up quicker elsewhere."""
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
        """As before; gathers the gradients of the heads, whatever is read of them."""
        for heads in super().heads_apart():
            yield heads
            if heads.apart:
                heads._gather_all()
        self.gathered = self.gathered or heads.apart

    def _only(self, heads: slice) -> Self:
        only = super()._only(heads)
        only.apart, only.rows = True, self.scratch.rows_apart
        only.value, only.grad_output = self.value[heads], self.grad_output[heads]
        only.grads = [None if grad is None else grad[:, heads] for grad in self.grads]
        if self.sums:
            only.delta, only.sums = self.delta[heads], [total[heads] for total in self.sums]
        return only

    def gradient(self, rows: slice) -> Tensor:
        """G (n, H, R, T) of some query rows."""
        torch.bmm(some_rows(self.grad_output, rows), self.value.mT, out=self._matrix(1, rows))
        return self.spare(1, rows)

    def _gather(self, block: RowBlock) -> None:
        """Adds the block's part of dQ, dK and dV. The gradient of the scores takes the place of the attention's."""
        grad_query, grad_key, grad_value = self.sums
        _ = block.attention, block.gradient  # which are computed, if they are not yet
        rows, attention, gradient = block.rows, self._matrix(0, block.rows), self._matrix(1, block.rows)
        beta = 0 if rows.start == 0 else 1
        grad_output, query = some_rows(self.grad_output, rows), some_rows(self.query, rows)
        torch.baddbmm(grad_value, attention.mT, grad_output, beta=beta, out=grad_value)
        grad_scores = gradient.sub_(some_rows(self.delta, rows)).mul_(attention)
        row_grads = some_rows(grad_query, rows)
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
        """Hands the gradients over, gathering them first unless all blocks were."""
        self._gather_all()
        for grad, total in zip(() if self._sums_are_grads() else self.grads, self.sums, strict=False):
            if grad is not None:
                grad.copy_(total.view(grad.shape))
        for grad in (self.grads[0], self.grads[3]):
            if grad is not None and self.queries < self.shape[-1]:
                grad[:, :, self.queries :] = 0
        self.whole = None  # else the two would keep each other, and the scratch memory


def _is_nowhere(mask: Tensor) -> Tensor:
    """Of which queries the mask hides all keys (n, H, R, 1)."""
    if mask.dtype == torch.bool:
        return ~mask.any(-1, keepdim=True)
    return mask.amax(-1, keepdim=True) == -torch.inf


def flat(tensor: Tensor, precision: torch.dtype | None = None) -> Tensor:
    """(n, H, T, D) → (nH, T, D), in a precision; default: single at least."""
    precision = precision or of_sums(tensor.dtype)
    if tensor.dtype != precision:  # one copy does both
        tensor = tensor.to(precision, memory_format=torch.contiguous_format)
    return tensor[0] if len(tensor) == 1 else tensor.flatten(0, 1)
