"""Reductions of a layer in the backward pass: of each head a norm of its gradient, and a row times one of its matrices.

A rule asks for a :class:`Reduction`, and makes its step of the result, :class:`HeadSums`. ``dispatch`` chooses the
implementation. ``read_blocks``, over blocks of query rows, takes any reduction; tests compare the others with it.

Letters in shapes: N examples, H heads, T tokens, R query rows of a block. In formulas: A a layer's attention, G the
gradient of the target with respect to it.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Literal, NamedTuple, Protocol, TypeAlias

import torch
from torch import Tensor

from captum_gmar.engine.kernels.layer import LayerGradient
from captum_gmar.engine.kernels.precision import row_products, sum_dtype

Matrix: TypeAlias = Literal["attention", "product", "positive", "positive gradient"]


class Reduction(NamedTuple):
    """Sums of each head over all query rows; at least one."""

    row: Tensor | None = None  # r (N, T), how much each query row counts, zero or more; None: one each
    matrix: Matrix | None = None  # M, of which r·M is read: A, A ⊙ G, (A ⊙ G)⁺ or G⁺
    norm: str | None = None  # "l1" or "l2", of G entry by entry, or "positive", the sum of G⁺
    totals: Matrix | None = None  # another M, of which the sums of the rows are read


NOTHING = torch.empty(0, device="cpu")


class HeadSums(NamedTuple):
    """The result of a reduction, in single precision at least; NOTHING where the reduction lacks it."""

    rows: Tensor = NOTHING  # r·M (N, H, T)
    norms: Tensor = NOTHING  # (N, H)
    totals: Tensor = NOTHING  # the sums of each row (N, H, T)


Reduce: TypeAlias = Callable[[LayerGradient, Reduction], HeadSums]


class Matrices(Protocol):
    """A and G of some query rows, of one layer or several; R may be T."""

    @property
    def attention(self) -> Tensor:
        """A (..., H, R, T), probabilities after softmax."""

    @property
    def gradient(self) -> Tensor:
        """G (..., H, R, T), of the target with respect to the attention. A sweep has none."""

    @property
    def spare(self) -> Tensor:
        """Memory (..., H, R, T) for products; those with the attention overwrite it. A sweep has none."""


class Block(Matrices, Protocol):
    """Some query rows of one layer. The tensors are scratch memory: use them before asking for the next block."""

    @property
    def rows(self) -> slice:
        """Slice of the T query tokens."""


class Blocks(Protocol):
    """A layer, or some of its heads."""

    def __iter__(self) -> Iterator[Block]: ...

    def heads_apart(self) -> Iterable["Blocks"]:
        """Yield some heads after the others (N, h, R, T): quicker, for sums of each head by itself."""

    def keep_first(self, queries: int) -> None:
        """Leave out all query rows but the first, as the others give nothing."""


def positive_product(block: Matrices) -> Tensor:
    r"""Compute :math:`A \odot G^+`, which is :math:`(A \odot G)^+` because A is not negative."""
    return product(block).clamp_(min=0)


def product(block: Matrices) -> Tensor:
    r"""Compute :math:`A \odot G`; both are read before it takes the block's memory."""
    return torch.mul(block.attention, block.gradient, out=block.spare)


def positive_gradient(block: Matrices) -> Tensor:
    r"""Compute :math:`G^+`, in the block's spare memory."""
    return torch.clamp(block.gradient, min=0, out=block.spare)


def _attention(block: Matrices) -> Tensor:
    return block.attention


MATRICES: dict[Matrix, Callable[[Matrices], Tensor]] = {
    "attention": _attention,
    "product": product,
    "positive": positive_product,
    "positive gradient": positive_gradient,
}


def read_blocks(layer: Blocks, reduction: Reduction) -> HeadSums:
    """Compute a reduction over the blocks of a layer."""
    return join_sums([_read_heads(heads, reduction) for heads in layer.heads_apart()], dim=1)


def _read_heads(layer: Blocks, reduction: Reduction) -> HeadSums:
    row, matrix, norm, summed = reduction
    norms, rows, totals = [], [], []
    for block in layer:
        if norm is not None:
            norms.append(head_norms(norm, block.gradient, block.spare))
        if matrix is not None:
            block_matrix = MATRICES[matrix](block)
            rows.append(wide_sum(block_matrix, -2) if row is None else head_rows(row, block, block_matrix))
        if summed is not None:
            totals.append(wide_sum(MATRICES[summed](block), -1))
    return HeadSums(
        sum_up(rows) if rows else NOTHING,
        NOTHING if norm is None else combine_norms(norm, norms),
        torch.cat(totals, -1) if totals else NOTHING,
    )


def join_sums(parts: Sequence[HeadSums], dim: int) -> HeadSums:
    """Join reductions of some examples (0) or heads (1) each."""
    if len(parts) == 1:
        return parts[0]
    return HeadSums(*(same[0] if same[0] is NOTHING else torch.cat(same, dim) for same in zip(*parts, strict=True)))


def head_norms(norm: str, gradient: Tensor, spare: Tensor | None = None) -> Tensor:
    """Compute the norm (N, H) of some rows' gradient (N, H, R, T)."""
    if norm == "positive":
        return _positive_total(gradient, spare)
    if norm == "l1" and not gradient.is_cuda:  # where vector_norm adds up one by one: slowly, and rounds more
        return wide_sum(torch.abs(gradient, out=spare), (-2, -1))
    magnitude: Tensor = torch.linalg.vector_norm(gradient, int(norm[1]), (-2, -1), dtype=sum_dtype(gradient.dtype))
    return magnitude


def _positive_total(gradient: Tensor, spare: Tensor | None) -> Tensor:
    if gradient.is_cuda:  # two reads are cheaper than a read and a write
        return positive_sum(gradient, (-2, -1))
    return wide_sum(torch.clamp(gradient, min=0, out=spare), (-2, -1))


def combine_norms(norm: str, parts: list[Tensor]) -> Tensor:
    """Combine the norms of some rows each: (N, H) of all rows."""
    if len(parts) == 1:
        return parts[0]
    if norm == "positive":
        return sum_up(parts)
    magnitude: Tensor = torch.linalg.vector_norm(torch.stack(parts), int(norm[1]), dim=0)
    return magnitude


def head_rows(row: Tensor, block: Block, matrix: Tensor) -> Tensor:
    """Compute each head's r·M over the block's rows: (N, H, T), of M (N, H, R, T)."""
    examples, heads, rows, _ = matrix.shape
    head_row = row[:, None, block.rows].expand(-1, heads, -1).reshape(examples * heads, 1, rows)
    return row_products(head_row, matrix.flatten(0, 1)).view(examples, heads, -1)


def wide_sum(matrix: Tensor, dim: int | tuple[int, ...]) -> Tensor:
    """Sum along dimensions, in single precision at least."""
    return matrix.sum(dim, dtype=sum_dtype(matrix.dtype))


def positive_sum(matrix: Tensor, dim: int | tuple[int, ...]) -> Tensor:
    """Sum the positive numbers along dimensions, as half the sum of all and of their magnitudes."""
    magnitudes: Tensor = torch.linalg.vector_norm(matrix, 1, dim, dtype=sum_dtype(matrix.dtype))
    return magnitudes.add_(wide_sum(matrix, dim)).mul_(0.5)


def sum_up(parts: list[Tensor]) -> Tensor:
    """Sum tensors of one shape."""
    return parts[0] if len(parts) == 1 else torch.stack(parts).sum(0)


def count_leading(counts: Tensor) -> int:
    """Count the tokens up to the last that counts for any example (N, T), one at least."""
    places = counts.any(0).nonzero()
    return int(places[-1]) + 1 if len(places) else 1
