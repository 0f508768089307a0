"""Shapes, textures and figures of synthetic scenes.

A shape of unit area is a signed distance, negative inside, in coordinates relative to its centre. A texture maps pixel
offsets to the weight of the second of two colours, from 0 to 1, with edges one pixel soft. Objects, distractors and
backgrounds share one distribution of colours. Pixels are computed by sums, products, square roots and comparisons only,
which IEEE arithmetic rounds equally on every platform.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

Plane: TypeAlias = NDArray[np.float64]
Phase: TypeAlias = tuple[float, float]
Outline: TypeAlias = Callable[[Plane, Plane], Plane]
Texture: TypeAlias = Callable[[Plane, Plane, float, Phase], Plane]
Window: TypeAlias = tuple[slice, slice]

SIZE: Final = 112  # side of a scene in pixels
REACH: Final = 1.27  # maximal distance of a shape's points from its centre
_OUTSIDE: Final = 8  # pixels: maximal distance of centres outside the scene
_SHORTEST_PERIOD, _LONGEST_PERIOD = 4.0, 7.0  # pixels


def unit_vector(turn: float) -> tuple[float, float]:
    """Return (cosine, sine) of a fraction of a full turn, rounded since math libraries differ in the last bits."""
    return round(math.cos(2 * math.pi * turn), 6), round(math.sin(2 * math.pi * turn), 6)


def _side_distances(x: Plane, y: Plane, sides: int, inradius: float) -> list[Plane]:
    """Return the signed distances to the lines of a regular polygon's sides."""
    normals = [unit_vector(side / sides + 0.25) for side in range(sides)]
    return [x * cosine + y * sine - inradius for cosine, sine in normals]


def disc(x: Plane, y: Plane) -> Plane:
    """Return the distance to a disc."""
    return np.sqrt(x * x + y * y) - 0.5642


def ring(x: Plane, y: Plane) -> Plane:
    """Return the distance to a ring whose hole is half as wide."""
    return np.abs(np.sqrt(x * x + y * y) - 0.4974) - 0.16


def triangle(x: Plane, y: Plane) -> Plane:
    """Return the distance to an equilateral triangle."""
    first, second, third = _side_distances(x, y, 3, 0.4387)
    return np.maximum(np.maximum(first, second), third)


def square(x: Plane, y: Plane) -> Plane:
    """Return the distance to a square of side 1."""
    return np.maximum(np.abs(x), np.abs(y)) - 0.5


def star(x: Plane, y: Plane) -> Plane:
    """Return the distance to a pentagram."""
    # A point is in a pentagram if it is on the inner side of at least four of its five lines, so the second largest
    # distance decides.
    largest = second = np.full(np.broadcast_shapes(x.shape, y.shape), -np.inf)
    for distance in _side_distances(x, y, 5, 0.2917):
        second = np.maximum(second, np.minimum(largest, distance))
        largest = np.maximum(largest, distance)
    return second


def bar(x: Plane, y: Plane) -> Plane:
    """Return the distance to a bar, 2.5 long and 0.4 wide."""
    return np.maximum(np.abs(x) - 1.25, np.abs(y) - 0.2)


def soften(distance: Plane) -> Plane:
    """Convert a signed distance in pixels to coverage: 1 inside, 0 outside, with an edge of one pixel."""
    return np.minimum(np.maximum(0.5 - distance, 0.0), 1.0)


def _line_distance(position: Plane, period: float, phase: float) -> Plane:
    """Return the signed distance to the nearest line, of lines that repeat every `period` pixels."""
    shifted = position / period + phase
    return (shifted - np.floor(shifted) - 0.5) * period


def striped(u: Plane, v: Plane, period: float, phase: Phase) -> Plane:
    """Return stripes along v, as wide as their gaps."""
    return soften(np.abs(_line_distance(u, period, phase[0])) - period / 4)


def ringed(u: Plane, v: Plane, period: float, phase: Phase) -> Plane:
    """Return rings around the centre."""
    return striped(np.sqrt(u * u + v * v), v, period, phase)


def checked(u: Plane, v: Plane, period: float, phase: Phase) -> Plane:
    """Return a chessboard."""
    # A chessboard repeats faster along its diagonal than along its sides, so its sides get a longer period.
    columns = striped(u, v, 1.25 * period, phase)
    rows = striped(v, u, 1.25 * period, phase[::-1])
    return columns + rows - 2 * columns * rows


def dotted(u: Plane, v: Plane, period: float, phase: Phase) -> Plane:
    """Return dots on a square grid."""
    x, y = _line_distance(u, period, phase[0]), _line_distance(v, period, phase[1])
    return soften(np.sqrt(x * x + y * y) - 0.33 * period)


TEXTURES: tuple[Texture, ...] = (striped, checked, dotted, ringed)


def _hsv_colour(hue: float, saturation: float, value: float) -> Plane:
    distances = (abs((hue + offset) % 1.0 * 6 - 3) for offset in (0.0, 2 / 3, 1 / 3))
    return np.array([value * (1 - saturation * (1 - min(max(d - 1, 0.0), 1.0))) for d in distances])


def draw_colours(rng: np.random.Generator) -> tuple[Plane, Plane]:
    """Return a dark and a light colour, red-green-blue from 0 to 1, in random order, that show a texture."""
    hue, turn, opposite, dark_s, dark_v, light_s, light_v, order = rng.random(8).tolist()
    light_hue = (hue + 0.25 * turn - 0.125 + 0.5 * (opposite < 0.4)) % 1.0
    dark = _hsv_colour(hue, 0.5 + 0.45 * dark_s, 0.22 + 0.38 * dark_v)
    light = _hsv_colour(light_hue, 0.1 + 0.55 * light_s, 0.82 + 0.18 * light_v)
    return (dark, light) if order < 0.5 else (light, dark)


@dataclass(frozen=True)
class Figure:
    """Shape with a position, texture and colours."""

    shape: Outline  # signed distance of unit area
    texture: Texture | None  # None for the first colour only
    size: float
    centre: tuple[float, float]  # column and row in pixels
    turn: float  # rotation of the shape, as a fraction of a full turn
    texture_turn: float  # the texture's
    period: float  # of the texture in pixels
    phase: Phase  # shift of the texture, as fractions of its period
    colours: tuple[Plane, Plane]  # first and second, red-green-blue from 0 to 1


def draw_figure(rng: np.random.Generator, shape: Outline, texture: Texture | None, size: float) -> Figure:
    """Sample a figure whose position, rotation, texture and colours are independent of its shape."""
    column, row, turn, texture_turn, period, shift, other_shift = rng.random(7).tolist()
    longest_period = min(_LONGEST_PERIOD, 0.45 * size)  # small figures must show their texture
    return Figure(
        shape,
        texture,
        size,
        centre=(_scene_coordinate(column), _scene_coordinate(row)),
        turn=turn,
        texture_turn=texture_turn,
        period=_SHORTEST_PERIOD + (longest_period - _SHORTEST_PERIOD) * period,
        phase=(shift, other_shift),
        colours=draw_colours(rng),
    )


def _scene_coordinate(uniform: float) -> float:
    return uniform * (SIZE + 2 * _OUTSIDE) - _OUTSIDE


def window(figure: Figure) -> Window:
    """Return the scene's rows and columns that hold the figure."""
    reach = REACH * figure.size + 1
    columns, rows = (slice(max(int(centre - reach), 0), min(int(centre + reach) + 1, SIZE)) for centre in figure.centre)
    return rows, columns


def coverage(figure: Figure, region: Window) -> Plane:
    """Return the figure's coverage of each pixel in the window, from 0 to 1."""
    x, y = _offsets(figure, region, figure.turn)
    return soften(figure.shape(x / figure.size, y / figure.size) * figure.size)


def paint(canvas: Plane, figure: Figure) -> tuple[Window, Plane]:
    """Paint the figure onto a canvas (SIZE, SIZE, 3) in place; return its window and coverage."""
    region = window(figure)
    cover = coverage(figure, region)
    canvas[region] += cover[..., None] * (_colour(figure, region) - canvas[region])
    return region, cover


def _colour(figure: Figure, region: Window) -> Plane:
    first, second = figure.colours
    if figure.texture is None:
        return first
    u, v = _offsets(figure, region, figure.texture_turn)
    return first + (second - first) * figure.texture(u, v, figure.period, figure.phase)[..., None]


def _offsets(figure: Figure, region: Window, turn: float) -> tuple[Plane, Plane]:
    """Return the window's pixel centres relative to the figure's centre, in axes rotated by `turn`."""
    rows, columns = region
    cosine, sine = unit_vector(turn)
    x = np.arange(columns.start, columns.stop) + (0.5 - figure.centre[0])
    y = (np.arange(rows.start, rows.stop) + (0.5 - figure.centre[1]))[:, None]
    return x * cosine + y * sine, y * cosine - x * sine
