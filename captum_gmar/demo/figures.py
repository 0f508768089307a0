"""One figure of a scene: a shape at a place, in a texture or plain, and how it is painted onto a canvas."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from captum_gmar.demo.shapes import REACH, Shape, unit_vector
from captum_gmar.demo.textures import Array, Phase, Texture, draw_colours, soften

SIZE: Final = 112  # side of a scene in pixels
_OUTSIDE: Final = 8  # centres may lie this many pixels outside the scene
_SHORTEST_PERIOD, _LONGEST_PERIOD = 4.0, 7.0  # pixels

Window = tuple[slice, slice]


@dataclass(frozen=True)
class Figure:
    """A shape at a place, with everything that is random about it.

    Attributes:
        shape: signed distance of the form, of unit area.
        texture: the texture; `None` paints the first colour alone.
        size: side in pixels of a square of the same area.
        centre: column and row in pixels.
        turn, texture_turn: rotation of the form and of the texture, as fractions of a full turn.
        period: distance in pixels at which the texture repeats.
        phase: shift of the texture, as fractions of its period.
        colours: first and second colour, red-green-blue from 0 to 1.
    """

    shape: Shape
    texture: Texture | None
    size: float
    centre: tuple[float, float]
    turn: float
    texture_turn: float
    period: float
    phase: Phase
    colours: tuple[Array, Array]


def draw_figure(rng: np.random.Generator, shape: Shape, texture: Texture | None, size: float) -> Figure:
    """Return a figure whose place, rotation, texture and colours are random and know nothing of its form."""
    column, row, turn, texture_turn, period, shift, other_shift = rng.random(7).tolist()
    longest_period = min(_LONGEST_PERIOD, 0.45 * size)  # a small figure must still show its texture
    return Figure(
        shape,
        texture,
        size,
        centre=(_to_coordinate(column), _to_coordinate(row)),
        turn=turn,
        texture_turn=texture_turn,
        period=_SHORTEST_PERIOD + (longest_period - _SHORTEST_PERIOD) * period,
        phase=(shift, other_shift),
        colours=draw_colours(rng),
    )


def _to_coordinate(uniform: float) -> float:
    return uniform * (SIZE + 2 * _OUTSIDE) - _OUTSIDE


def window(figure: Figure) -> Window:
    """Return the rows and columns of the scene outside of which the figure paints nothing."""
    reach = REACH * figure.size + 1
    columns, rows = (slice(max(int(centre - reach), 0), min(int(centre + reach) + 1, SIZE)) for centre in figure.centre)
    return rows, columns


def coverage(figure: Figure, where: Window) -> Array:
    """Return how much of each pixel in the window the figure covers, from 0 to 1."""
    x, y = _offsets(figure, where, figure.turn)
    return soften(figure.shape(x / figure.size, y / figure.size) * figure.size)


def paint(canvas: Array, figure: Figure) -> tuple[Window, Array]:
    """Paint the figure onto a canvas of shape (SIZE, SIZE, 3), in place; return its window and coverage."""
    where = window(figure)
    cover = coverage(figure, where)
    canvas[where] += cover[..., None] * (_colour(figure, where) - canvas[where])
    return where, cover


def _colour(figure: Figure, where: Window) -> Array:
    first, second = figure.colours
    if figure.texture is None:
        return first
    u, v = _offsets(figure, where, figure.texture_turn)
    return first + (second - first) * figure.texture(u, v, figure.period, figure.phase)[..., None]


def _offsets(figure: Figure, where: Window, turn: float) -> tuple[Array, Array]:
    """Return the window's pixel centres relative to the figure's centre, in axes rotated by `turn`."""
    rows, columns = where
    cosine, sine = unit_vector(turn)
    x = np.arange(columns.start, columns.stop) + (0.5 - figure.centre[0])
    y = (np.arange(rows.start, rows.stop) + (0.5 - figure.centre[1]))[:, None]
    return x * cosine + y * sine, y * cosine - x * sine
