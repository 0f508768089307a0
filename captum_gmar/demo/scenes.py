"""Synthetic scenes with known explanations: textured shapes on clutter, with pixel masks.

A class is a shape with a texture. Each shape and each texture belongs to three classes, so neither determines the
class; colours and positions are independent of it. Plain shapes and textured bars are distractors.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from captum_gmar.demo import drawing
from captum_gmar.demo.drawing import SIZE, Figure, Outline, Plane, Texture, coverage, draw_figure, paint, window

KINDS: Final[tuple[tuple[Texture, Outline], ...]] = (
    (drawing.striped, drawing.disc),
    (drawing.checked, drawing.disc),
    (drawing.dotted, drawing.disc),
    (drawing.striped, drawing.ring),
    (drawing.checked, drawing.ring),
    (drawing.ringed, drawing.ring),
    (drawing.striped, drawing.triangle),
    (drawing.dotted, drawing.triangle),
    (drawing.ringed, drawing.triangle),
    (drawing.checked, drawing.star),
    (drawing.dotted, drawing.star),
    (drawing.ringed, drawing.star),
)
CLASSES: Final[tuple[str, ...]] = tuple(f"{texture.__name__} {shape.__name__}" for texture, shape in KINDS)
MAX_OBJECTS: Final = 4

SHAPES: Final[tuple[Outline, ...]] = (*dict.fromkeys(shape for _, shape in KINDS), drawing.square, drawing.bar)
_SIZES: Final = (16.0, 38.0)  # side of a square of the object's area, in pixels
_LEAST_VISIBLE_SHARE: Final = 0.5  # of an object's area
_LEAST_VISIBLE_AREA: Final = 160.0  # pixels
_BLOTCHES: Final = (0.55, 0.35, 0.3, 0.25)  # strengths of the background's noise, coarse to fine
_GRAIN: Final = 0.08


@dataclass(frozen=True)
class Scene:
    """Image with known explanations.

    Attributes:
        image: red-green-blue image (112, 112, 3).
        labels: class index of each object, all different; `CLASSES` holds their names.
        masks: pixels that each object touches (objects, 112, 112), in the order of `labels`, without overlap.
        seed: seed of the scene.
    """

    image: NDArray[np.uint8]
    labels: tuple[int, ...]
    masks: NDArray[np.bool_]
    seed: int


@dataclass(frozen=True)
class Composition:
    """Painted scene."""

    canvas: Plane  # red-green-blue (SIZE, SIZE, 3) from 0 to 1
    figures: tuple[Figure, ...]  # distractors, then objects, in the order of painting
    owner: NDArray[np.int_]  # index of each pixel's uppermost figure (SIZE, SIZE), -1 for the background
    labels: tuple[int, ...]  # class index of each object


def make_scene(seed: int, objects: int | None = None) -> Scene:
    """Make the scene of a seed.

    Args:
        seed: Non-negative seed. Equal seeds return equal bits.
        objects: Number of objects, each of another class, 0 to 4. By default the seed chooses 1 to 4. A seed's
            background does not depend on the number of objects.

    Returns:
        Scene: Scene with **image**, **labels** and **masks**.

    Raises:
        ValueError: If `objects` is not between 0 and 4.

    Example::

        >>> scene = make_scene(3, objects=2)
        >>> scene.image.shape, scene.masks.shape, len(scene.labels)
        ((112, 112, 3), (2, 112, 112), 2)
    """
    composition = compose(seed, objects)
    first = len(composition.figures) - len(composition.labels)
    masks = [composition.owner == first + index for index in range(len(composition.labels))]
    return Scene(
        image=to_image(composition.canvas),
        labels=composition.labels,
        masks=np.array(masks, dtype=np.bool_).reshape(-1, SIZE, SIZE),
        seed=seed,
    )


def compose(seed: int, objects: int | None = None) -> Composition:
    """Paint the scene of a seed, and record each pixel's figure; see `make_scene`."""
    rng = np.random.default_rng([seed, 1])
    count = int(rng.integers(1, MAX_OBJECTS + 1))
    if objects is not None:
        if not 0 <= objects <= MAX_OBJECTS:
            raise ValueError(f"objects must be between 0 and {MAX_OBJECTS}, but got {objects}.")
        count = objects
    labels = tuple(rng.permutation(len(KINDS))[:count].tolist())
    background_rng = np.random.default_rng([seed, 0])
    canvas = _draw_background(background_rng)
    distractors = [_draw_distractor(background_rng) for _ in range(int(background_rng.integers(4, 9)))]
    figures = distractors + _draw_objects(labels, rng)
    owner = np.full((SIZE, SIZE), -1)
    for index, figure in enumerate(figures):
        region, cover = paint(canvas, figure)
        owner[region][cover > 0] = index
    return Composition(canvas, tuple(figures), owner, labels)


def to_image(canvas: Plane) -> NDArray[np.uint8]:
    """Convert a canvas from 0 to 1 to an image from 0 to 255, rounded half up."""
    return np.floor(np.clip(canvas, 0.0, 1.0) * 255 + 0.5).astype(np.uint8)


def _draw_background(rng: np.random.Generator) -> Plane:
    """Return a mottled, grainy canvas (SIZE, SIZE, 3)."""
    first, second = drawing.draw_colours(rng)
    canvas = first + (second - first) * _draw_blotches(rng)[..., None]
    return canvas + _GRAIN * (rng.random((SIZE, SIZE, 1)) - 0.5)


def _draw_blotches(rng: np.random.Generator) -> Plane:
    """Return smooth noise (SIZE, SIZE) from 0 to 1: random values on finer and finer grids."""
    cells = SIZE >> len(_BLOTCHES)
    values = np.full((cells + 1, cells + 1), 0.5)
    for strength in _BLOTCHES:
        values += strength * (rng.random(values.shape) - 0.5)
        values = _add_midpoints(_add_midpoints(values).T)
    blotches: Plane = np.minimum(np.maximum(values[:SIZE, :SIZE], 0.0), 1.0)
    return blotches


def _add_midpoints(values: Plane) -> Plane:
    """Insert the mean of each two neighbouring rows between them."""
    finer = np.empty((2 * len(values) - 1, values.shape[1]))
    finer[::2] = values
    finer[1::2] = (values[:-1] + values[1:]) / 2
    return finer


def _draw_distractor(rng: np.random.Generator) -> Figure:
    size = 0.7 * _draw_size(rng)
    if rng.random() < 0.3:
        texture = drawing.TEXTURES[int(rng.integers(len(drawing.TEXTURES)))]
        return draw_figure(rng, drawing.bar, texture, size)
    return draw_figure(rng, SHAPES[int(rng.integers(len(SHAPES)))], None, size)


def _draw_size(rng: np.random.Generator) -> float:
    smallest, largest = _SIZES
    return smallest + (largest - smallest) * float(rng.random())


def _draw_objects(labels: tuple[int, ...], rng: np.random.Generator) -> list[Figure]:
    """Return one figure per label, without overlap."""
    figures: list[Figure] = []
    covered = np.zeros((SIZE, SIZE), dtype=np.bool_)
    while len(figures) < len(labels):
        texture, shape = KINDS[labels[len(figures)]]
        figure = draw_figure(rng, shape, texture, _draw_size(rng))
        if rng.random() >= _frequency(figure):
            continue
        region = window(figure)
        cover = coverage(figure, region)
        least = max(_LEAST_VISIBLE_AREA, _LEAST_VISIBLE_SHARE * figure.size**2)
        if cover.sum() >= least and not covered[region][cover > 0].any():
            covered[region] |= cover > 0
            figures.append(figure)
    return figures


def _frequency(figure: Figure) -> float:
    """Return the frequency of a position, so that objects cover all parts of the scene equally.

    Objects cut by the border must be recognisable, so the border would have fewer objects. Positions near the border,
    in units of the object's size, are therefore used more often.
    """
    inner = [min(centre, SIZE - centre) > 0.3 * figure.size for centre in figure.centre]
    return 0.71 ** sum(inner)
