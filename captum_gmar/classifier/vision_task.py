"""What a trained model does: tells the class of an image, a video or a sound, finds objects, or segments."""

import os
from enum import Enum
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn

from captum_gmar.classifier.image_classifier import Classifier
from captum_gmar.classifier.loading import (
    UNREACHABLE,
    check_processor_file,
    check_weights,
    named_failure,
    read_pretrained,
)


class VisionTask(Enum):
    """By the words in which it is spoken of."""

    CLASSIFICATION = "classifies images"
    DETECTION = "detects objects"
    SEGMENTATION = "segments images"
    VIDEO = "classifies videos"
    SOUND = "classifies sounds"


# As the names end of the classes that transformers has for a task, and what loads them.
SAVED_FOR = {
    "ForObjectDetection": (VisionTask.DETECTION, "AutoModelForObjectDetection"),
    "ForSemanticSegmentation": (VisionTask.SEGMENTATION, "AutoModelForSemanticSegmentation"),
    "ForVideoClassification": (VisionTask.VIDEO, "AutoModelForVideoClassification"),
    "ForAudioClassification": (VisionTask.SOUND, "AutoModelForAudioClassification"),
}


def find_task(name: str | Path, patience: float | None = None) -> VisionTask:
    """
    What a model was saved for, by its config. One that cannot be read, or names no class, is taken for a classifier of
    images, whose loading tells what is wrong.

    Args:
        name (str or Path): Folder or Hugging Face id.
        patience (float, optional): Seconds for the hub to answer at all, where it is asked.
            Default: None, as long as its client tries

    Raises:
        OSError: if the hub is asked and cannot be reached.
        ValueError: if its config names classes in no list.
    """
    try:
        config = read_pretrained(os.fspath(name), _read_config, patience)
    except Exception as error:
        if UNREACHABLE in str(error):  # which is not asked again
            raise
        return VisionTask.CLASSIFICATION
    architectures = getattr(config, "architectures", None) or ()
    if not isinstance(architectures, list | tuple) or not all(isinstance(saved, str) for saved in architectures):
        raise ValueError(f"{name}: its config.json must have a list of names as architectures. Got {architectures!r}.")
    for saved in architectures:
        for ending, (task, _) in SAVED_FOR.items():
            if saved.endswith(ending):
                return task
    return VisionTask.CLASSIFICATION


def load_for_task(
    name: str | Path, task: VisionTask, *, device: torch.device | str | None = None, patience: float | None = None
) -> Classifier:
    """
    Loads a trained detector, segmenter, or classifier of videos or sounds, in single precision and evaluation mode.

    Args:
        name (str or Path): Folder or Hugging Face id.
        task (VisionTask): Which of these it is, as :func:`find_task` tells.
        device (torch.device or str, optional): Where the model goes.
            Default: None, the CPU
        patience (float, optional): As of :func:`find_task`.
            Default: None

    Returns:
        Classifier: With its **model** and **processor**, whose ``pixel_values`` take single images.

    Raises:
        OSError: if it cannot be found or read; the message names it.
        ValueError: if it is no trained model of this task whose weights fit its config.
    """
    name = os.fspath(name)
    processor, model, report = read_pretrained(name, partial(_read_for_task, task), patience)
    check_weights(name, model, report, f"model that {task.value}")
    return Classifier(model.eval().to(device or "cpu"), processor)


def _read_config(name: str, local_files_only: bool) -> Any:
    return transformers.AutoConfig.from_pretrained(name, trust_remote_code=False, local_files_only=local_files_only)


def _read_for_task(task: VisionTask, name: str, local_files_only: bool) -> tuple[Any, nn.Module, dict[str, Any]]:
    """Processor, model, and which of its weights were missing or left over."""
    options: dict[str, Any] = {"trust_remote_code": False, "local_files_only": local_files_only}
    check_processor_file(name)
    with named_failure(name, "preprocessor_config.json"):
        processor = _read_processor(task, name, options)
    options |= {"dtype": torch.float32, "output_loading_info": True, "ignore_mismatched_sizes": True}
    kind = next(kind for of_class, kind in SAVED_FOR.values() if of_class is task)
    with named_failure(name, "model"):
        model, report = getattr(transformers, kind).from_pretrained(name, **options)
    return processor, model, report


def _read_processor(task: VisionTask, name: str, options: dict[str, Any]) -> Any:
    if task is VisionTask.SOUND:
        return transformers.AutoFeatureExtractor.from_pretrained(name, **options)
    try:
        return transformers.AutoImageProcessor.from_pretrained(name, **options)
    except (OSError, ValueError):
        if task is not VisionTask.VIDEO:
            raise
        return transformers.AutoVideoProcessor.from_pretrained(name, **options)  # as of V-JEPA 2, which has no other
