"""The forms of the synthetic scenes: signed distances of shapes that all have unit area.

Distances are negative inside. Each takes coordinates relative to the shape's middle. Only sums, products,
square roots and comparisons touch the pixels: IEEE arithmetic rounds them the same way on every platform.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[np.float64]
Shape: TypeAlias = Callable[[Array, Array], Array]

REACH: Final = 1.27  # no shape reaches farther than this from its middle


def unit_vector(turn: float) -> tuple[float, float]:
    """Return (cosine, sine) of a fraction of a full turn, rounded to hide the math library's last bits."""
    return round(math.cos(2 * math.pi * turn), 6), round(math.sin(2 * math.pi * turn), 6)


def _to_sides(x: Array, y: Array, sides: int, inradius: float) -> list[Array]:
    """Return the signed distance to the line through each side of a regular polygon."""
    normals = [unit_vector(side / sides + 0.25) for side in range(sides)]
    return [x * cosine + y * sine - inradius for cosine, sine in normals]


def disc(x: Array, y: Array) -> Array:
    return np.sqrt(x * x + y * y) - 0.5642


def ring(x: Array, y: Array) -> Array:
    return np.abs(np.sqrt(x * x + y * y) - 0.4974) - 0.16


def triangle(x: Array, y: Array) -> Array:
    first, second, third = _to_sides(x, y, 3, 0.4387)
    return np.maximum(np.maximum(first, second), third)


def square(x: Array, y: Array) -> Array:
    return np.maximum(np.abs(x), np.abs(y)) - 0.5


def star(x: Array, y: Array) -> Array:
    # A point lies in a pentagram when it is on the inner side of at least four of its five lines,
    # so what decides is the second largest distance.
    largest = second = np.full(np.broadcast_shapes(x.shape, y.shape), -np.inf)
    for distance in _to_sides(x, y, 5, 0.2917):
        second = np.maximum(second, np.minimum(largest, distance))
        largest = np.maximum(largest, distance)
    return second


def bar(x: Array, y: Array) -> Array:
    return np.maximum(np.abs(x) - 1.25, np.abs(y) - 0.2)
