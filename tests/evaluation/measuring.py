"""A small classifier, its examples, and their measurements."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from captum_gmar.evaluation.data.example import Example
from captum_gmar.evaluation.data.subject import GivenClassifier
from captum_gmar.evaluation.faithfulness import Faithfulness
from captum_gmar.evaluation.runs.batches import Skipped
from captum_gmar.evaluation.runs.journal import Batch, Result, result_of
from captum_gmar.metrics.controls import CONTROLS

PATCH, STEPS = 8, 4
BOX = (4.0, 4.0, 20.0, 12.0)
NAMES = ("gmar-l1", "gradient-rollout")

Make = Callable[..., Faithfulness]


def pixels_of(image: Image.Image) -> Tensor:
    return torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(image.getpixel((0, 0))[0]))


@dataclass(frozen=True)
class SmallClassifier(GivenClassifier):
    """Takes images as :func:`pixels_of`, or another function, makes them."""

    pixels: Callable[[Image.Image], Tensor] = field(default=pixels_of)

    def pixel_values(self, image: Image.Image) -> Tensor:
        return self.pixels(image)

    def mask(self, mask: Image.Image) -> Tensor:
        return torch.from_numpy(np.array(mask)) > 0


def examples(count: int) -> list[Example]:
    """Every second of them with a box."""
    return [
        Example(str(i), None, partial(Image.new, "RGB", (32, 32), (i, 0, 0)), (BOX,) if i % 2 else ())
        for i in range(count)
    ]


def measure(work: Faithfulness, numbers: Sequence[int]) -> tuple[Batch, list[Skipped]]:
    """Measure all methods and controls."""
    seconds: dict[str, float] = {}
    records, skipped = work.batches.finish(numbers, partial(work.measure, (*NAMES, *CONTROLS), seconds))
    return Batch(tuple(records), seconds), skipped


def results(batch: Batch) -> list[Result]:
    """Return the results by the names of the examples, which are their numbers."""
    return [result_of(int(record.example.name), [record]) for record in batch.records]


def values_of(result: Result) -> dict[tuple[str, str, str], float]:
    return {(row.method, row.metric, row.removal): row.value for row in result.rows}


def values(batch: Batch) -> dict[tuple[int, str, str, str], float]:
    return {(own.number, *key): value for own in results(batch) for key, value in values_of(own).items()}
