"""Small images with labels and masks."""

import numpy as np
import torch
from PIL import Image
from torch import Tensor

IMAGES, LABELLED = 3, 10
FEW = {"methods": ["rollout"], "metrics": ["deletion", "relevance-mass"], "removals": ["mean"], "steps": 4}
CORNERS = [8, 0, 24, 16]

Labelled = list[tuple[Tensor, int]]


def pixels(number):
    return torch.randn(3, 32, 32, generator=torch.Generator().manual_seed(number))


def mask():
    on_object = torch.zeros(32, 32, dtype=torch.bool)
    on_object[0:16, 8:24] = True
    return on_object


def photo(number):
    return Image.fromarray(np.random.default_rng(number).integers(0, 256, (32, 32, 3), dtype=np.uint8))


class Pairs(torch.utils.data.Dataset[tuple[Tensor, int, Tensor]]):
    """A map-style data set."""

    def __len__(self):
        return IMAGES

    def __getitem__(self, number):
        return pixels(number), number, mask()


class Damaged(Pairs):
    """A data set with one item that cannot be read."""

    def __init__(self, error):
        self.error = error

    def __getitem__(self, number):
        if number == 1:
            raise self.error
        return super().__getitem__(number)


def values_in_order(evaluation):
    return [row["value"] for row in evaluation.records()]


def batch(data):
    return torch.stack([image for image, _ in data]), torch.tensor([label for _, label in data])


def content(folder):
    """The tables, which must not change from run to run."""
    return {name: (folder / name).read_text() for name in ("heads.csv", "heads.md") if (folder / name).exists()}


def number_of(name):
    """Return the number in the name of an image."""
    return int(name.split()[-1])
