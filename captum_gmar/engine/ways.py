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
from typing import TypeAlias

from captum_gmar.engine.in_blocks import read_in_blocks
from captum_gmar.engine.kernel import is_readable, read_by_kernel
from captum_gmar.engine.reading import Heads, LayerGradient, Reading, Way

IsOpen: TypeAlias = Callable[[LayerGradient, Reading], bool]


def _always(layer: LayerGradient, reading: Reading) -> bool:
    return True


# The quickest first.
WAYS: dict[str, tuple[IsOpen, Way]] = {
    "kernel": (is_readable, read_by_kernel),
    "blocks": (_always, read_in_blocks),
}


def read_layer(layer: LayerGradient, reading: Reading) -> Heads:
    """The answer to a reading, by the first way that is open."""
    way = next(way for is_open, way in WAYS.values() if is_open(layer, reading))
    return way(layer, reading)
