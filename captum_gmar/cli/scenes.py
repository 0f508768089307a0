"""The built-in scenes and model as what a command over a data set is about."""

import argparse
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from PIL import Image

from captum_gmar import demo
from captum_gmar.demo.localisation import FIRST_SEED
from captum_gmar.evaluation.data import Example
from captum_gmar.evaluation.subject import Subject, classifier_of

SCENES = 500
DRAWN = 100  # of them, unless another limit is given
NUMBERS = {1: "one object", 2: "two objects"}


@contextmanager
def scene_subject(arguments: argparse.Namespace, device: torch.device, objects: int) -> Iterator[Subject]:
    """Scenes of so many objects; label and mask are those of the first, which is explained unless asked otherwise."""
    arguments.target, arguments.limit = arguments.target or "label", arguments.limit or DRAWN
    examples = [_example(FIRST_SEED + number, objects) for number in range(SCENES)]
    with demo.model_folder() as folder:
        classifier = classifier_of(str(folder), arguments, device)
        yield Subject(classifier, "the built-in model", examples, f"built-in scenes of {NUMBERS[objects]}")


def _example(seed: int, objects: int) -> Example:
    def image() -> Image.Image:
        return Image.fromarray(demo.make_scene(seed, objects).image)

    def mask() -> Image.Image:
        return Image.fromarray(demo.make_scene(seed, objects).masks[0])

    return Example(f"scene {seed}", str(demo.make_scene(seed, objects).labels[0]), image, mask=mask)
