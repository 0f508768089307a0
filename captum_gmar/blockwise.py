"""Scaled dot-product attention whose backward hands out the attention and its gradient in blocks of query rows.

Letters in shapes: N examples, H heads, T tokens, D head dimension, R query rows of a block; n examples of a part.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from captum_gmar.rules import Block

# A block holds as many examples as fit these elements with all their query rows, or else some rows of one example.
BLOCK_ELEMENTS = {"cpu": 1 << 19, "cuda": 1 << 25}
MIN_BLOCK_ROWS = 128

OnBlocks = Callable[[slice, Iterable[Block]], None]


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    scale: float | None,
    anchor: Tensor,
    on_blocks: OnBlocks,
) -> Tensor:
    """``F.scaled_dot_product_attention`` of (N, H, T, D) tensors that hands out its blocks in backward.

    Args:
        mask: boolean or additive, broadcastable to (N, H, T, T).
        anchor: a tensor that requires grad and receives zero: autograd comes here even if nothing else asks for it.
        on_blocks: called in backward with a slice of the examples and their blocks, for every part of the examples in
            turn. It may go over the blocks any number of times, also none.
    """
    attended: Tensor = _Attention.apply(query, key, value, mask, scale, anchor, on_blocks)  # type: ignore[no-untyped-call]
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
    ) -> Tensor:
        output = F.scaled_dot_product_attention(query, key, value, mask, scale=scale)
        ctx.save_for_backward(query, key, value, mask, output)
        ctx.scale = query.shape[-1] ** -0.5 if scale is None else scale
        ctx.on_blocks = on_blocks
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, mask, output = ctx.saved_tensors
        shape = (*query.shape[:-1], key.shape[-2])  # (N, H, T, T)
        needs_grad = any(ctx.needs_input_grad[:4])
        grads = [torch.empty_like(t) if needs_grad else None for t in (query, key, value)]
        grad_scores = grad_output.new_empty(shape) if ctx.needs_input_grad[3] else None
        step, rows = _block_size(shape, query.device)
        precision = torch.promote_types(query.dtype, torch.float32)
        buffers = query.new_empty(2, min(step, shape[0]) * shape[1] * rows * shape[3], dtype=precision)
        with torch.autocast(query.device.type, enabled=False):
            for start in range(0, len(query), step):
                part = slice(start, start + step)
                blocks = _Blocks(
                    *(t[part] for t in (query, key, value, output, grad_output)),
                    mask=None if mask is None else mask.expand(shape)[part],
                    scale=ctx.scale,
                    rows=rows,
                    buffers=buffers,
                    grads=[None if t is None else t[part] for t in (*grads, grad_scores)],
                )
                ctx.on_blocks(part, blocks)
                blocks.finish()
        grad_mask = None if grad_scores is None else grad_scores.sum_to_size(mask.shape)
        return (*grads, grad_mask, None, torch.zeros(()), None)


def _block_size(shape: tuple[int, ...], device: torch.device) -> tuple[int, int]:
    """Examples and query rows of a block for attention of shape (N, H, T, T)."""
    _, heads, tokens, _ = shape
    elements = BLOCK_ELEMENTS.get(device.type, BLOCK_ELEMENTS["cuda"])
    rows = max(MIN_BLOCK_ROWS, elements // (heads * tokens))
    return max(1, elements // (heads * tokens**2)), min(rows, tokens)


class _Blocks:
    """Some examples of a layer on the way back; going over all blocks gathers the gradients as well."""

    def __init__(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        output: Tensor,
        grad_output: Tensor,
        *,
        mask: Tensor | None,
        scale: float,
        rows: int,
        buffers: Tensor,
        grads: list[Tensor | None],
    ) -> None:
        self.shape = query.shape[:-1]  # (n, H, T)
        self.query = _flat(query) * scale
        self.key, self.value, self.grad_output = _flat(key), _flat(value), _flat(grad_output)
        self.mask, self.scale, self.rows = mask, scale, rows
        self.buffers, self.grads = buffers, grads
        self.gathered = grads[0] is None
        self.sums: tuple[Tensor, ...] = ()
        if not self.gathered:
            self.delta = (self.grad_output * _flat(output)).sum(-1, keepdim=True)  # (nH, T, 1)
            self.sums = tuple(torch.empty_like(t) for t in (self.query, self.key, self.value))

    def __iter__(self) -> Iterator[Block]:
        gather, tokens = not self.gathered, self.shape[-1]
        for start in range(0, tokens, self.rows):
            rows = slice(start, min(start + self.rows, tokens))
            flat = (len(self.query), rows.stop - start, tokens)
            attention, gradient = (b[: flat[0] * flat[1] * tokens].view(flat) for b in self.buffers)
            self._attention(rows, attention)
            torch.bmm(self.grad_output[:, rows], self.value.mT, out=gradient)
            shape = (*self.shape[:2], *flat[1:])  # (n, H, R, T)
            yield Block(rows, attention.view(shape), gradient.view(shape))
            if gather:
                self._gather(rows, attention, gradient)
        self.gathered = True

    def _attention(self, rows: slice, out: Tensor) -> None:
        torch.bmm(self.query[:, rows], self.key.mT, out=out)
        if self.mask is not None:
            mask, scores = self.mask[:, :, rows], out.view(*self.shape[:2], -1, self.shape[-1])
            if mask.dtype == torch.bool:
                scores.masked_fill_(~mask, -torch.inf)
            else:
                scores += mask
        torch.softmax(out, -1, out=out)

    def _gather(self, rows: slice, attention: Tensor, gradient: Tensor) -> None:
        """Adds the block's part of dQ, dK and dV. The gradient of the scores takes the place of the attention's."""
        grad_query, grad_key, grad_value = self.sums
        beta = 0 if rows.start == 0 else 1
        torch.baddbmm(grad_value, attention.mT, self.grad_output[:, rows], beta=beta, out=grad_value)
        grad_scores = gradient.sub_(self.delta[:, rows]).mul_(attention)
        row_grads = grad_query[:, rows]
        torch.baddbmm(row_grads, grad_scores, self.key, beta=0, alpha=self.scale, out=row_grads)
        torch.baddbmm(grad_key, grad_scores.mT, self.query[:, rows], beta=beta, out=grad_key)
        if self.grads[3] is not None:
            self.grads[3][:, :, rows] = grad_scores.view(*self.shape[:2], -1, self.shape[-1])

    def finish(self) -> None:
        """Hands the gradients over, gathering them first if nobody went over all blocks."""
        if not self.gathered:
            for _ in self:
                pass
        for grad, total in zip(self.grads, self.sums, strict=False):
            if grad is not None:
                grad.copy_(total.view(grad.shape))


def _flat(tensor: Tensor) -> Tensor:
    """(n, H, T, D) → (nH, T, D), in at least single precision."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32)).flatten(0, 1).contiguous()
