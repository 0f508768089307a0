"""The ways in which a layer is read on the way back, and which of them is taken.

A :data:`Way` answers a :class:`~captum_gmar.engine.reading.Reading` of a layer and the gradient of its output. All give
the same numbers, those of ``read_blocks`` up to rounding. To add one:

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

The row r may be zero for most queries, and the gradient too: in the last layer of a model that reads its CLS token all
but the first row is.
"""

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

from torch import Tensor

from captum_gmar.engine.blockwise import GradientBlocks, Layer, Scratch, Workspace
from captum_gmar.engine.reading import Heads, Reading, joined, read_blocks


class LayerGradient(NamedTuple):
    """A layer on the way back: what its attention was computed from, and the gradient of what came out."""

    query: Tensor  # (N, H, T, D)
    key: Tensor  # (N, H, T, D)
    value: Tensor  # (N, H, T, D)
    grad_output: Tensor  # (N, H, T, D)
    mask: Tensor | None  # boolean or additive, broadcastable to (N, H, T, T)
    scale: float  # of the scores


Way: TypeAlias = Callable[[LayerGradient, Reading], Heads]
IsOpen: TypeAlias = Callable[[LayerGradient, Reading], bool]


def read_in_blocks(layer: LayerGradient, reading: Reading) -> Heads:
    """Any reading of any layer, in blocks of query rows whose attention and gradient are computed again."""
    part = Layer(layer.query, layer.key, layer.mask, layer.scale)
    scratch = Scratch(part, Workspace())
    parts = []
    for examples in scratch.parts():
        blocks = GradientBlocks(
            part.part(examples),
            scratch,
            value=layer.value[examples],
            output=None,
            grad_output=layer.grad_output[examples],
            grads=[None] * 4,
        )
        row = None if reading.row is None else reading.row[examples]
        parts.append(read_blocks(blocks, reading._replace(row=row)))
    return joined(parts, dim=0)


def _always(layer: LayerGradient, reading: Reading) -> bool:
    return True


# The quickest first.
WAYS: dict[str, tuple[IsOpen, Way]] = {"blocks": (_always, read_in_blocks)}


def read_layer(layer: LayerGradient, reading: Reading) -> Heads:
    """The answer to a reading, by the first way that is open."""
    way = next(way for is_open, way in WAYS.values() if is_open(layer, reading))
    return way(layer, reading)
