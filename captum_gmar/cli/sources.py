"""What a command over single images is about: the user's model and images, or what is built in."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from PIL import Image

from captum_gmar import demo
from captum_gmar.classifier import Classifier, choose_device, load_classifier
from captum_gmar.classifier.answering import load_answering
from captum_gmar.files.images import read_image

SCENE_SEED = 3
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


def open_answering(model: str, device: str) -> AnswerSource:
    """The model of this name, and image files.

    Raises:
        OSError, ValueError: as :func:`open_source`.
    """
    return AnswerSource(*load_answering(model, device=choose_device(device), patience=HUB_SECONDS), read_image)
