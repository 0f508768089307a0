"""Training on built-in scenes: batches with targets for the image and each patch, and the losses."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from captum_gmar.demo.drawing import SIZE, TEXTURES, Texture
from captum_gmar.demo.patches import GRID, PATCH, to_pixel_values
from captum_gmar.demo.scenes import CLASSES, SHAPES, Composition, compose, to_image
from tools.training.loop import Stage, descend
from tools.training.optimizing import build_optimizers

_ALL_TEXTURES: Final[tuple[Texture | None, ...]] = (*TEXTURES, None)  # with the plain figures'
QUESTIONS: Final = (len(CLASSES) + 1, len(SHAPES) + 1, len(_ALL_TEXTURES) + 1)  # answers, the last "nothing"
_OBJECT_WEIGHT: Final = 6.0  # of patches that show something, against those that do not
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


def render_pool(first_seed: int, count: int) -> Pool:
    """Render the scenes of `count` seeds."""
    images = np.empty((count, SIZE, SIZE, 3), dtype=np.uint8)
    areas = np.empty((count, GRID, GRID, sum(QUESTIONS)), dtype=np.uint8)
    for index in range(count):
        composition = compose(first_seed + index)
        images[index], areas[index] = to_image(composition.canvas), _count_answers(composition)
    return Pool(torch.from_numpy(images), torch.from_numpy(areas))


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


def class_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the mean cross-entropy over images with an object; others have all-zero targets."""
    return -(targets * logits.log_softmax(dim=-1)).sum() / targets.sum().clamp(min=1)


def patch_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the cross-entropy of each question, summed over questions."""
    total = logits.new_zeros(())
    answers, shares = (torch.split(values, list(QUESTIONS), dim=-1) for values in (logits, targets))
    for answer, target in zip(answers, shares, strict=True):
        weight = torch.where(target[..., -1] < 0.7, _OBJECT_WEIGHT, 1.0)
        entropy = functional.cross_entropy(answer.movedim(-1, 1), target.movedim(-1, 1), reduction="none")
        total = total + (entropy * weight).sum() / weight.sum()
    return total


def question_head(width: int) -> nn.Module:
    """Return a throw-away head that asks a patch which class, form and texture it shows."""
    return nn.Sequential(nn.LayerNorm(width), nn.Linear(width, sum(QUESTIONS)))


def scene_loss(model: nn.Module, heads: Mapping[int, nn.Module], prefix: int, batch: Batch) -> Tensor:
    """Return the loss of the classes and of what each patch is asked.

    Args:
        model: a classifier of transformers.
        heads: the head that asks the hidden states of that number.
        prefix: tokens before those of the patches.
        batch: images and targets.
    """
    output: Any = model(batch.pixel_values, output_hidden_states=True)
    loss = class_loss(output.logits, batch.class_targets)
    for layer, head in heads.items():
        loss = loss + patch_loss(head(output.hidden_states[layer][:, prefix:]), batch.patch_targets)
    return loss


def fit_scenes(
    model: nn.Module,
    heads: Mapping[int, nn.Module],
    prefix: int,
    pool: Pool,
    stage: Stage,
    generator: torch.Generator,
    place_crop: Callable[[int, int], None] = lambda row, column: None,
) -> Iterator[float]:
    """Train a classifier for a stage, yielding the loss after each step.

    Args:
        model, heads, prefix: as :func:`scene_loss` takes them.
        pool: scenes from which batches are drawn.
        stage: its sides, steps and rates.
        generator: draws the batches.
        place_crop: told before each step on crops which row and column of the scene they pretend to come from.
    """

    def draw_loss() -> Tensor:
        if stage.side < GRID:
            place_crop(*torch.randint(GRID - stage.side + 1, (2,), generator=generator).tolist())
        return scene_loss(model, heads, prefix, draw_batch(pool, stage.batch_size, stage.side, generator))

    asking = nn.ModuleList(dict.fromkeys(heads.values()))
    return descend(build_optimizers(model.train(), asking), stage, draw_loss)


def save_processor(output: Path) -> None:
    """Write the image processor by hand, as the fields of save_pretrained differ from version to version."""
    processor = {
        "image_processor_type": "ViTImageProcessor",
        "do_resize": True,
        "size": {"height": SIZE, "width": SIZE},
        "resample": 2,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
    }
    (output / "preprocessor_config.json").write_text(json.dumps(processor, indent=2) + "\n")
