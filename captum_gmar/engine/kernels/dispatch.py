"""The ways in which a layer is read on the way back, and which of them is taken.

A :data:`Way` answers a :class:`~captum_gmar.engine.kernels.reduction.Reading` of a layer and the gradient of its
output. All give the same numbers, those of ``read_blocks`` up to rounding. To add one:

1. write it in a file of its own: ``def read_by_…(layer: LayerGradient, reading: Reading) -> Heads``. ``layer`` holds
   query, key and value (N, H, T, D) as the model has them (any strides, the model's precision), the gradient of the
   output in the same shape, the scale as a number, and a mask or None. ``reading.row`` is r (N, T), float32 at least,
   on the layer's device, or None; ``reading.matrix`` names M and ``reading.norm`` the norm of G. Return what is to
   be read, in float32 at least, and NOTHING in place of what is not: ``Heads(rows (N, H, T), norms (N, H))``. It must
   not wait for the device, and must leave the layer's tensors as they are;
2. say in a function of the same file for which layers and readings it can be taken, ``LayerGradient, Reading → bool``;
   it may look at shapes, precisions, devices and whether there is a mask, not at numbers. A self-test on the device at
   first use belongs there;
3. put it into :data:`WAYS`, before those that it is quicker than.

What the gradient of the value tells by itself, ``fused`` reads where torch's own backward is left to run: see
:func:`is_fused`, which chooses between that and ``recompute``, whose backward shares its products with the reading.

Small layers are not read on the way back but ``batched`` after it: see :func:`is_read_together`.

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
from captum_gmar.engine.kernels.precision import of_sums, wide_product
from captum_gmar.engine.kernels.reduction import NOTHING, Heads, Reading, Way
from captum_gmar.engine.kernels.triton_reduction import is_readable, read_by_kernel

IsOpen: TypeAlias = Callable[[LayerGradient, Reading], bool]

VALUE_MATRICES = ("attention", "product")  # that the gradient of the value tells


def _always(layer: LayerGradient, reading: Reading) -> bool:
    return True


def _is_squared(layer: LayerGradient, reading: Reading) -> bool:
    return reading.norm == "l2" and reading.matrix is None and reading.totals is None


def read_squares(layer: LayerGradient, reading: Reading) -> Heads:
    """Compute the L2 norm of G = δ Vᵀ by two D×D matrices: ‖G‖² = ⟨δᵀδ, VᵀV⟩."""
    grad_output, value = layer.grad_output.flatten(0, 1), layer.value.flatten(0, 1)
    products = wide_product(grad_output.mT, grad_output).mul_(wide_product(value.mT, value))
    return Heads(NOTHING, products.sum((-2, -1)).clamp_(min=0).sqrt_().view(layer.value.shape[:2]))


# The quickest first.
WAYS: dict[str, tuple[IsOpen, Way]] = {
    "kernel": (is_readable, read_by_kernel),
    "squares": (_is_squared, read_squares),
    "value": (is_row_of_attention, read_by_value),
    "blocks": (_always, read_in_blocks),
}


def read_layer(layer: LayerGradient, reading: Reading) -> Heads:
    """Compute a reduction by the first implementation that takes it."""
    if reading.matrix is not None and reading.row is None:
        row = layer.grad_output.new_ones(1, 1, dtype=of_sums(layer.grad_output.dtype))
        reading = reading._replace(row=row.expand(len(layer.query), layer.query.shape[-2]).contiguous())
    way = next(way for is_open, way in WAYS.values() if is_open(layer, reading))
    return way(layer, reading)


def is_fused(query: Tensor, value: Tensor, implementation: Implementation | None = None) -> bool:
    """Return whether torch's own backward goes over a layer, beside which it is read; else blocks do both.

    Args:
        query: (N, H, T, D)
        value: (N, H, T, D)
        implementation: of a plan that names one.
    """
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
