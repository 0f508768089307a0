"""Clips whose right explanation is known: what moves, among what stands still.

A class is a direction. Shapes, textures, colours and places tell nothing of it, and no single frame does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from captum_gmar.demo.drawing import TEXTURES, Plane, draw_colours, soften, unit_vector
from captum_gmar.demo.scenes import SHAPES, to_image

DIRECTIONS: Final = {"right": (1, 0), "left": (-1, 0), "down": (0, 1), "up": (0, -1)}  # of column and row
FRAMES: Final = 8
SIDE: Final = 48  # pixels
_SIZES: Final = (9.0, 14.0)  # side of a square of a figure's area, in pixels
_SPEEDS: Final = (1.0, 2.0)  # pixels from frame to frame
_STILL: Final = 2  # figures
_FORMS: Final = SHAPES[:-1]  # a bar would be longer than its way


@dataclass(frozen=True)
class Clip:
    """A short film whose right explanation is known.

    Attributes:
        frames: red-green-blue images, (FRAMES, SIDE, SIDE, 3).
        labels: index of each moving figure's direction, all different.
        masks: the pixels that each moving figure touches, (figures, FRAMES, SIDE, SIDE); none overlap.
    """

    frames: NDArray[np.uint8]
    labels: tuple[int, ...]
    masks: NDArray[np.bool_]


def make_clip(seed: int, moving: int) -> Clip:
    """Make the clip of a seed. Equal seeds give equal bits.

    Args:
        seed: non-negative.
        moving: how many figures move, each another way, 0 to 4.
    """
    rng = np.random.default_rng([seed, moving])
    labels = tuple(rng.permutation(len(DIRECTIONS))[:moving].tolist())
    ways = [(0, 0)] * _STILL + [list(DIRECTIONS.values())[label] for label in labels]
    canvas = np.tile(_background(rng), (FRAMES, 1, 1, 1))
    owner = np.full((FRAMES, SIDE, SIDE), -1)
    for index, way in enumerate(ways):
        for frame, (cover, colours) in enumerate(_moved(rng, way)):
            canvas[frame] += cover[..., None] * (colours - canvas[frame])
            owner[frame][cover > 0] = index
    masks = [owner == _STILL + index for index in range(moving)]
    return Clip(
        np.stack([to_image(image) for image in canvas]),
        labels,
        np.array(masks, dtype=np.bool_).reshape(-1, FRAMES, SIDE, SIDE),
    )


def _background(rng: np.random.Generator) -> Plane:
    """Draw a grainy slope from one colour to another, (SIDE, SIDE, 3)."""
    first, second = draw_colours(rng)
    cosine, sine = unit_vector(float(rng.random()))
    x = np.arange(SIDE) / SIDE - 0.5
    slope: Plane = 0.5 + 0.6 * (cosine * x + sine * x[:, None])
    return first + (second - first) * slope[..., None] + 0.1 * (rng.random((SIDE, SIDE, 1)) - 0.5)


def _moved(rng: np.random.Generator, way: tuple[int, int]) -> list[tuple[Plane, Plane]]:
    """Return a figure's coverage (SIDE, SIDE) and colours (SIDE, SIDE, 3) in each frame."""
    shape, texture = _FORMS[int(rng.integers(len(_FORMS)))], TEXTURES[int(rng.integers(len(TEXTURES)))]
    size, speed = (low + (high - low) * float(rng.random()) for low, high in (_SIZES, _SPEEDS))
    cosine, sine = unit_vector(float(rng.random()))
    first, second = draw_colours(rng)
    phase, margin = (float(rng.random()), float(rng.random())), 0.5 * size
    middle = margin + (SIDE - 2 * margin) * rng.random(2)  # of its way
    drawn = []
    for frame in range(FRAMES):
        column, row = middle + (frame - (FRAMES - 1) / 2) * speed * np.array(way)
        x, y = np.arange(SIDE) + 0.5 - column, (np.arange(SIDE) + 0.5 - row)[:, None]
        u, v = x * cosine + y * sine, y * cosine - x * sine
        cover = soften(shape(u / size, v / size) * size)
        drawn.append((cover, first + (second - first) * texture(u, v, 0.45 * size, phase)[..., None]))
    return drawn
