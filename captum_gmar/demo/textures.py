"""The textures and colours of the synthetic scenes.

A texture maps pixel offsets to how much of the second of two colours shows there, from 0 to 1, with edges
one pixel soft. Colours come from one distribution, whatever they paint: objects, distractors, backgrounds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[np.float64]
Phase: TypeAlias = tuple[float, float]
Texture: TypeAlias = Callable[[Array, Array, float, Phase], Array]


def soften(distance: Array) -> Array:
    """Turn a signed distance in pixels into coverage: 1 inside, 0 outside, one pixel in between."""
    return np.minimum(np.maximum(0.5 - distance, 0.0), 1.0)


def _to_nearest_line(position: Array, period: float, phase: float) -> Array:
    """Return the signed distance to the nearest of the lines that repeat every `period` pixels."""
    shifted = position / period + phase
    return (shifted - np.floor(shifted) - 0.5) * period


def striped(u: Array, v: Array, period: float, phase: Phase) -> Array:
    return soften(np.abs(_to_nearest_line(u, period, phase[0])) - period / 4)


def ringed(u: Array, v: Array, period: float, phase: Phase) -> Array:
    return striped(np.sqrt(u * u + v * v), v, period, phase)


def checked(u: Array, v: Array, period: float, phase: Phase) -> Array:
    # Diagonally a check repeats faster than its sides do, so its sides get a longer period than a stripe.
    columns = striped(u, v, 1.25 * period, phase)
    rows = striped(v, u, 1.25 * period, phase[::-1])
    return columns + rows - 2 * columns * rows


def dotted(u: Array, v: Array, period: float, phase: Phase) -> Array:
    across = _to_nearest_line(u, period, phase[0])
    along = _to_nearest_line(v, period, phase[1])
    return soften(np.sqrt(across * across + along * along) - 0.33 * period)


TEXTURES: tuple[Texture, ...] = (striped, checked, dotted, ringed)


def _from_hsv(hue: float, saturation: float, value: float) -> Array:
    distances = (abs((hue + offset) % 1.0 * 6 - 3) for offset in (0.0, 2 / 3, 1 / 3))
    return np.array([value * (1 - saturation * (1 - min(max(d - 1, 0.0), 1.0))) for d in distances])


def draw_colours(rng: np.random.Generator) -> tuple[Array, Array]:
    """Return a dark and a light colour, red-green-blue from 0 to 1, in random order.

    The hues are close to each other or nearly opposite; lightness always differs enough to show a texture.
    """
    hue, turn, opposite, dark_s, dark_v, light_s, light_v, order = rng.random(8).tolist()
    light_hue = (hue + 0.25 * turn - 0.125 + 0.5 * (opposite < 0.4)) % 1.0
    dark = _from_hsv(hue, 0.5 + 0.45 * dark_s, 0.22 + 0.38 * dark_v)
    light = _from_hsv(light_hue, 0.1 + 0.55 * light_s, 0.82 + 0.18 * light_v)
    return (dark, light) if order < 0.5 else (light, dark)
