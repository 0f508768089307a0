"""A small classifier, its examples, and their measurements."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from captum_gmar.evaluation.data.example import Example
from captum_gmar.evaluation.data.subject import GivenClassifier
from captum_gmar.evaluation.faithfulness import Faithfulness
from captum_gmar.evaluation.runs.journal import Batch, result_of
from captum_gmar.metrics.controls import CONTROLS

PATCH, STEPS = 8, 4
BOX = (4.0, 4.0, 20.0, 12.0)
NAMES = ("gmar-l1", "gradient-rollout")

Make = Callable[..., Faithfulness]


def pixels_of(image):
    return torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(image.getpixel((0, 0))[0]))


@dataclass(frozen=True)
class SmallClassifier(GivenClassifier):
    """Takes images as :func:`pixels_of`, or another function, makes them."""

    pixels: Callable[[Image.Image], Tensor] = field(default=pixels_of)

    def pixel_values(self, image):
        return self.pixels(image)

    def mask(self, mask):
        return torch.from_numpy(np.array(mask)) > 0


def examples(count):
    """Every second of them with a box."""
    return [
        Example(str(i), None, partial(Image.new, "RGB", (32, 32), (i, 0, 0)), (BOX,) if i % 2 else ())
        for i in range(count)
    ]


def measure(work, numbers):
    """Measure all methods and controls."""
    seconds = {}
    records, skipped = work.batches.finish(numbers, partial(work.measure, (*NAMES, *CONTROLS), seconds))
    return Batch(tuple(records), seconds), skipped


def results(batch):
    """Return the results by the names of the examples, which are their numbers."""
    return [result_of(int(record.example.name), [record]) for record in batch.records]


def values_of(result):
    return {(row.method, row.metric, row.removal): row.value for row in result.rows}


def values(batch):
    return {(own.number, *key): value for own in results(batch) for key, value in values_of(own).items()}
