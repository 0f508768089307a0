"""What a command over a data set is about: the user's data and model, or the built-in scenes and model."""

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from PIL import Image

from captum_gmar import demo
from captum_gmar.classifier import load_classifier
from captum_gmar.cli.sources import HUB_SECONDS
from captum_gmar.demo.scene_localisation import FIRST_SEED
from captum_gmar.evaluation.data.example import Example
from captum_gmar.evaluation.data.subject import Subject

SCENES = 500
NUMBERS = {1: "one object", 2: "two objects"}


@contextmanager
def open_subject(
    arguments: argparse.Namespace, device: torch.device, objects: int, read: Callable[[Path], list[Example]]
) -> Iterator[Subject]:
    """The data and the model that the arguments name; where they name none, scenes and the built-in model.

    Args:
        arguments: of the command, with data, model and size.
        device: of the model.
        objects: in each scene.
        read: makes examples of the data.

    Raises:
        OSError, ValueError: if data or model cannot be read.
    """
    if arguments.data:
        examples = read(arguments.data)
        classifier = load_classifier(arguments.model, size=arguments.size, device=device, patience=HUB_SECONDS)
        yield Subject(classifier, examples, arguments.model, str(arguments.data))
    else:
        with scene_subject(objects, arguments.size, device) as subject:
            yield subject


@contextmanager
def scene_subject(objects: int, size: int | None, device: torch.device) -> Iterator[Subject]:
    """Scenes of so many objects, with label and mask of the first; size is that of the pixels, if not the model's."""
    examples = [scene_example(FIRST_SEED + number, objects) for number in range(SCENES)]
    with demo.model_folder() as folder:
        classifier = load_classifier(str(folder), size=size, device=device)
        yield Subject(classifier, examples, "the built-in model", f"built-in scenes of {NUMBERS[objects]}")


def scene_example(seed: int, objects: int) -> Example:
    """The scene of this seed, with label and mask of its first object."""

    def image() -> Image.Image:
        return Image.fromarray(demo.make_scene(seed, objects).image)

    def mask() -> Image.Image:
        return Image.fromarray(demo.make_scene(seed, objects).masks[0])

    return Example(f"scene {seed}", demo.make_scene(seed, objects).labels[0], image, mask=mask)
