"""What a command over single images is about: the user's model and images, or what is built in."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from PIL import Image

from captum_gmar import demo
from captum_gmar.classifier import Classifier, choose_device, load_classifier
from captum_gmar.classifier.loading import quiet
from captum_gmar.classifier.vision_task import load_answering
from captum_gmar.files.images import read_image

SCENE_SEED = 3
ASKED_SEED = 600_011  # of a scene of two objects
HUB_SECONDS = 5  # in which it must answer


class Source(NamedTuple):
    """A model, and what gives the image of a path."""

    classifier: Classifier
    read: Callable[[Path], Image.Image]


def open_source(model: str | None, size: int | None, device: str, texts: Sequence[str] = ()) -> Source:
    """The model of this name and image files; of None the built-in model, and the built-in scene for every path.

    With texts, these are the classes.

    Raises:
        OSError, ValueError: as :func:`~captum_gmar.classifier.choose_device` and
            :func:`~captum_gmar.classifier.load_classifier`.
    """
    place: torch.device = choose_device(device)
    if model is not None:
        classifier = load_classifier(model, size=size, device=place, patience=HUB_SECONDS, texts=texts)
        return Source(classifier, read_image)
    with demo.model_folder() as folder:
        classifier = load_classifier(folder, size=size, device=place)
    return Source(classifier, lambda path: demo.load_scene(SCENE_SEED).image)


class AnswerSource(NamedTuple):
    """A model that answers about pictures, its processor, and what gives the image of a path."""

    model: Any
    processor: Any
    read: Callable[[Path], Image.Image]


def open_answering(model: str | None, device: str) -> AnswerSource:
    """The model of this name, and image files; of None the built-in ones, as :func:`open_source`.

    Raises:
        OSError, ValueError: as :func:`open_source`.
        ImportError: if transformers is too old for the built-in model.
    """
    if model is None:
        with quiet():
            answering, processor = demo.load_answering_model(), demo.load_answering_processor()
        scene = demo.load_scene(ASKED_SEED, objects=2).image
        return AnswerSource(answering.to(choose_device(device)), processor, lambda path: scene)
    return AnswerSource(*load_answering(model, device=choose_device(device), patience=HUB_SECONDS), read_image)
