"""The model and the images of a command: the user's, or the built-in ones."""

import argparse
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from PIL import Image

from captum_gmar import demo
from captum_gmar.classifier import Classifier, choose_device, load_classifier
from captum_gmar.classifier.loading import quiet
from captum_gmar.classifier.vision_task import VisionTask, load_answering, load_for_task
from captum_gmar.evaluation.data.data_files import read_examples
from captum_gmar.evaluation.data.example import Example
from captum_gmar.evaluation.data.subject import Subject
from captum_gmar.files.images import read_image
from captum_gmar.files.names import readable_name

SCENE_SEED = 3
ASKED_SEED = 600_011  # a scene of two objects
FIRST_SEED = 600_000  # of the built-in data set: neither training nor the card's accuracy used scenes from here on
SCENES = 500  # in the built-in data set
NUMBERS = {1: "one object", 2: "two objects"}
HUB_SECONDS = 5  # within which the hub must answer


class Source(NamedTuple):
    """A model, and the function that reads the image of a path."""

    classifier: Classifier
    read: Callable[[Path], Image.Image]

    def open(self, path: Path) -> tuple[Image.Image, torch.Tensor]:
        """Return an image and its pixel values (1, channels, height, width)."""
        image = self.read(path)
        try:
            return image, self.classifier.pixel_values(image)
        except ValueError as error:
            raise ValueError(
                f"{readable_name(path)} cannot be read by the image processor: {error}. Convert it."
            ) from error


def open_source(model: str | None, size: int | None, device: str, texts: Sequence[str] = ()) -> Source:
    """Load the model of this name, with these classes, or the built-in model and scene; images are read from paths."""
    place: torch.device = choose_device(device)
    if model is not None:
        classifier = load_classifier(model, size=size, device=place, patience=HUB_SECONDS, texts=texts)
        return Source(classifier, read_image)
    with demo.model_folder() as folder:
        classifier = load_classifier(folder, size=size, device=place)
    return Source(classifier, lambda path: demo.load_scene(SCENE_SEED).image)


def open_for_task(task: str, model: str | None, device: str) -> Any:
    """Load the model of this name for a task, by the name of that.

    Of a model that answers, or of the built-in one, return its evidence, and the function that reads the image of a
    path, or None for a model of sounds.
    """
    from captum_gmar.vlm.evidence import AnswerEvidence

    place = choose_device(device)
    if task not in ("PROMPT", "SPEECH"):
        return load_for_task(str(model), VisionTask[task], device=place, patience=HUB_SECONDS)
    if model is not None:
        evidence = AnswerEvidence(*load_answering(model, device=place, patience=HUB_SECONDS))
        return evidence, read_image if task == "PROMPT" else None
    with quiet():
        answering, processor = demo.load_answering_model(), demo.load_answering_processor()
    scene = demo.load_scene(ASKED_SEED, objects=2).image
    return AnswerEvidence(answering.to(place), processor), lambda path: scene


@contextmanager
def open_subject(arguments: argparse.Namespace, device: torch.device, objects: int) -> Iterator[Subject]:
    """Yield the data and the model that the arguments name; without names, scenes and the built-in model."""
    if arguments.data:
        examples = read_examples(arguments.data)
        classifier = load_classifier(arguments.model, size=arguments.size, device=device, patience=HUB_SECONDS)
        yield Subject(classifier, examples, arguments.model, str(arguments.data))
    else:
        with scene_subject(objects, arguments.size, device) as subject:
            yield subject


@contextmanager
def scene_subject(objects: int, size: int | None, device: torch.device) -> Iterator[Subject]:
    """Yield scenes of so many objects and the built-in model, which runs at this size of pixels or its own."""
    examples = [scene_example(FIRST_SEED + number, objects) for number in range(SCENES)]
    with demo.model_folder() as folder:
        classifier = load_classifier(str(folder), size=size, device=device)
        yield Subject(classifier, examples, "the built-in model", f"built-in scenes of {NUMBERS[objects]}")


def scene_example(seed: int, objects: int) -> Example:
    """Return the scene of this seed, with label and mask of its first object."""

    def image() -> Image.Image:
        return Image.fromarray(demo.make_scene(seed, objects).image)

    def mask() -> Image.Image:
        return Image.fromarray(demo.make_scene(seed, objects).masks[0])

    return Example(f"scene {seed}", demo.make_scene(seed, objects).labels[0], image, mask=mask)
