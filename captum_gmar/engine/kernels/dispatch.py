"""The implementations of reductions, and the choice among them.

An implementation computes a :class:`~captum_gmar.engine.kernels.reduction.Reduction` of a layer and the gradient of its
output. All give the same numbers, those of ``read_blocks`` up to rounding. A new one is a function ``LayerGradient,
Reduction → HeadSums``, with sums in float32 at least, that neither waits for the device nor changes tensors of the
layer; beside it a function ``LayerGradient, Reduction → bool`` says which it takes, by shapes, precisions, devices and
mask, after a self-test on the device. Both go into :data:`IMPLEMENTATIONS`, before those that they are quicker than.

``fused`` reads sums by the gradient of the value where torch's own backward runs: :func:`is_fused` chooses between it
and ``recompute``, whose backward shares its products with the reductions. Small layers are read by ``batched`` after
the backward pass: see :func:`is_batched`.

The row r may be zero for most queries, and the gradient too: in the last layer of a model that reads its CLS token all
but the first row is.
"""

from collections.abc import Callable
from typing import TypeAlias

from torch import Tensor

from captum_gmar.engine.kernels.batched import is_small
from captum_gmar.engine.kernels.blocks import read_in_blocks
from captum_gmar.engine.kernels.fused import is_row_of_attention, read_by_value
from captum_gmar.engine.kernels.layer import Implementation, LayerGradient
from captum_gmar.engine.kernels.precision import sum_dtype, wide_product
from captum_gmar.engine.kernels.reduction import NOTHING, HeadSums, Reduce, Reduction
from captum_gmar.engine.kernels.triton_reduction import is_readable, read_by_kernel

Takes: TypeAlias = Callable[[LayerGradient, Reduction], bool]

VALUE_MATRICES = ("attention", "product")  # whose rows the gradient of the value holds


def _is_squared(layer: LayerGradient, reduction: Reduction) -> bool:
    return reduction.norm == "l2" and reduction.matrix is None and reduction.totals is None


def read_squares(layer: LayerGradient, reduction: Reduction) -> HeadSums:
    """Compute the L2 norm of G = δ Vᵀ by two D×D matrices: ‖G‖² = ⟨δᵀδ, VᵀV⟩."""
    grad_output, value = layer.grad_output.flatten(0, 1), layer.value.flatten(0, 1)
    products = wide_product(grad_output.mT, grad_output).mul_(wide_product(value.mT, value))
    return HeadSums(NOTHING, products.sum((-2, -1)).clamp_(min=0).sqrt_().view(layer.value.shape[:2]))


# The quickest first.
IMPLEMENTATIONS: dict[str, tuple[Takes, Reduce]] = {
    "kernel": (is_readable, read_by_kernel),
    "squares": (_is_squared, read_squares),
    "value": (is_row_of_attention, read_by_value),
    "blocks": (lambda layer, reduction: True, read_in_blocks),
}


def read_layer(layer: LayerGradient, reduction: Reduction) -> HeadSums:
    """Compute a reduction by the first implementation that takes it."""
    if reduction.matrix is not None and reduction.row is None:
        row = layer.grad_output.new_ones(1, 1, dtype=sum_dtype(layer.grad_output.dtype))
        reduction = reduction._replace(row=row.expand(len(layer.query), layer.query.shape[-2]).contiguous())
    reduce = next(reduce for takes, reduce in IMPLEMENTATIONS.values() if takes(layer, reduction))
    return reduce(layer, reduction)


def is_fused(query: Tensor, value: Tensor, implementation: Implementation | None = None) -> bool:
    """Return whether torch's own backward runs for (N, H, T, D), beside which a layer is read; else blocks do both."""
    if query.shape[-1] != value.shape[-1]:
        return False
    # On a CPU blocks are as quick or quicker, as products are shared: a layer of ViT-B at 768² takes 1.11 times the
    # model's own with GMAR's L1 norm and 1.08 with L2; beside torch's backward it takes 1.27 and 1.08.
    return query.device.type != "cpu" if implementation is None else implementation == "fused"


def is_batched(query: Tensor, value: Tensor, implementation: Implementation | None = None) -> bool:
    """Return whether layers, (N, H, T, D) each, are read together after the backward pass; else each in it."""
    if implementation is None:
        return is_small(query, value)
    return implementation == "batched" and query.shape == value.shape
