"""What the demo model is trained on: turned and cropped scenes, with targets for the image and each patch."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from captum_gmar.demo.drawing import TEXTURES, Texture
from captum_gmar.demo.patches import GRID, PATCH, to_pixel_values
from captum_gmar.demo.scenes import CLASSES, SHAPES, Composition, compose, to_image

_ALL_TEXTURES: Final[tuple[Texture | None, ...]] = (*TEXTURES, None)  # with the plain figures'
QUESTIONS: Final = (len(CLASSES) + 1, len(SHAPES) + 1, len(_ALL_TEXTURES) + 1)  # answers, the last "nothing"
_CHUNK: Final = 250  # scenes a worker renders at a time
_LEAST_SHARE: Final = 0.4  # an object counts as present in a crop that holds this share of its pixels


@dataclass(frozen=True)
class Pool:
    """Rendered scenes.

    Attributes:
        images: uint8, (N, SIZE, SIZE, 3).
        areas: pixels of each class, form and texture in each patch, uint8, (N, GRID, GRID, answers).
    """

    images: Tensor
    areas: Tensor


@dataclass(frozen=True)
class Batch:
    """A training step's images and targets.

    Attributes:
        pixel_values: images from -1 to 1, (N, 3, height, width).
        class_targets: the present classes with equal probability, (N, C); all zero where there is none.
        patch_targets: share of each class, form and texture in each patch, (N, P, answers).
    """

    pixel_values: Tensor
    class_targets: Tensor
    patch_targets: Tensor


def render_pool(first_seed: int, count: int, workers: int) -> Pool:
    """Render the scenes of `count` seeds in parallel."""
    starts = range(first_seed, first_seed + count, _CHUNK)
    stops = [min(start + _CHUNK, first_seed + count) for start in starts]
    # A process forked from one whose torch threads run may hang, so these are spawned.
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as executor:
        images, areas = zip(*executor.map(_render_chunk, starts, stops), strict=True)
    return Pool(torch.from_numpy(np.concatenate(images)), torch.from_numpy(np.concatenate(areas)))


def _render_chunk(first_seed: int, stop_seed: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    compositions = [compose(seed) for seed in range(first_seed, stop_seed)]
    images = np.stack([to_image(composition.canvas) for composition in compositions])
    return images, np.stack([_count_answers(composition) for composition in compositions])


def _count_answers(composition: Composition) -> NDArray[np.uint8]:
    """Count how many pixels of each patch have which class, form and texture, (GRID, GRID, answers)."""
    distractors = len(composition.figures) - len(composition.labels)
    answers = (
        [len(CLASSES)] * distractors + list(composition.labels),
        [SHAPES.index(figure.shape) for figure in composition.figures],
        [_ALL_TEXTURES.index(figure.texture) for figure in composition.figures],
    )
    counts = []
    for size, of_figures in zip(QUESTIONS, answers, strict=True):
        # Owner -1 is the background, and the last answer is "nothing".
        of_pixels = np.array([*of_figures, size - 1])[composition.owner]
        patches = of_pixels.reshape(GRID, PATCH, GRID, PATCH).swapaxes(1, 2).reshape(GRID, GRID, -1)
        counts.append((patches[..., None] == np.arange(size)).sum(axis=2, dtype=np.uint8))
    return np.concatenate(counts, axis=-1)


def draw_batch(pool: Pool, size: int, side: int, generator: torch.Generator) -> Batch:
    """Return random crops, `side` patches wide and high; `side=GRID` gives whole scenes."""
    chosen = torch.randint(len(pool.images), (size,), generator=generator)
    images, areas = _turn(pool.images[chosen], pool.areas[chosen], generator)
    whole = areas[..., : len(CLASSES)].sum(dim=(1, 2))  # (N, C)
    if side < GRID:
        images, areas = _crop(images, areas, side, generator)
    visible = areas[..., : len(CLASSES)].sum(dim=(1, 2))
    present = (visible >= _LEAST_SHARE * whole.clamp(min=1)).float()
    return Batch(
        pixel_values=to_pixel_values(images),
        class_targets=present / present.sum(dim=1, keepdim=True).clamp(min=1),
        patch_targets=areas.flatten(1, 2).float() / PATCH**2,
    )


def _turn(images: Tensor, areas: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Turn, mirror and recolour a batch: 48 variants, each as likely a scene as the original."""
    quarters, mirror = torch.randint(4, (2,), generator=generator).tolist()
    images, areas = (values.rot90(quarters, (1, 2)) for values in (images, areas))
    if mirror < 2:
        images, areas = images.flip(1), areas.flip(1)
    return images[..., torch.randperm(3, generator=generator)], areas


def _crop(images: Tensor, areas: Tensor, side: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Cut a square of `side` patches from each scene, around a random patch with an object on it."""
    background = areas[..., len(CLASSES)].flatten(1)
    anchors = torch.multinomial((background < 0.6 * PATCH**2) + 1e-6, 1, generator=generator)[:, 0]
    before = torch.randint(side, (2, len(images)), generator=generator)
    rows = (anchors // GRID - before[0]).clamp(0, GRID - side)
    columns = (anchors % GRID - before[1]).clamp(0, GRID - side)
    scene = torch.arange(len(images))
    image_crops = images.unfold(1, side * PATCH, PATCH).unfold(2, side * PATCH, PATCH)[scene, rows, columns]
    area_crops = areas.unfold(1, side, 1).unfold(2, side, 1)[scene, rows, columns]
    return image_crops.permute(0, 2, 3, 1), area_crops.permute(0, 2, 3, 1)
