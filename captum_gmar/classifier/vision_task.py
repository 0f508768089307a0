"""Loading of models for other tasks: detection, segmentation, videos, sounds, and answers about pictures."""

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
    first_of,
    read_config,
    read_parts,
    read_pretrained,
)


class VisionTask(Enum):
    """The task of a model, with the words for it in messages."""

    CLASSIFICATION = "classifies images"
    DETECTION = "detects objects"
    SEGMENTATION = "segments images"
    VIDEO = "classifies videos"
    SOUND = "classifies sounds"
    SPEECH = "generates text from sounds"


# The endings of transformers' class names for a task, and the class that loads them.
SAVED_FOR = {
    "ForObjectDetection": (VisionTask.DETECTION, "AutoModelForObjectDetection"),
    "ForSemanticSegmentation": (VisionTask.SEGMENTATION, "AutoModelForSemanticSegmentation"),
    "ForVideoClassification": (VisionTask.VIDEO, "AutoModelForVideoClassification"),
    "ForAudioClassification": (VisionTask.SOUND, "AutoModelForAudioClassification"),
}


def find_task(name: str | Path, patience: float | None = None) -> VisionTask:
    """Return the task that a model was saved for, by its config, which the hub has ``patience`` seconds to give.

    If the config cannot be read, or names no class, the task is classification of images, whose loader reports the
    fault.
    """
    try:
        config = read_pretrained(os.fspath(name), read_config, patience)
    except Exception as error:
        if UNREACHABLE in str(error):  # loading would fail in the same way
            raise
        return VisionTask.CLASSIFICATION
    architectures = getattr(config, "architectures", None) or ()
    if not isinstance(architectures, list | tuple) or not all(isinstance(saved, str) for saved in architectures):
        raise ValueError(f"{name}: architectures of config.json must be a list of names, but got {architectures!r}.")
    if _speech_loader(config) is not None:
        return VisionTask.SPEECH
    for saved in architectures:
        for ending, (task, _) in SAVED_FOR.items():
            if saved.endswith(ending):
                return task
    return VisionTask.CLASSIFICATION


def _speech_loader(config: Any) -> Any:
    """Return the class that loads a model that generates text from sounds, or None for other models."""
    if type(config) in transformers.MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING:
        return transformers.AutoModelForSpeechSeq2Seq
    is_qwen = hasattr(config, "audio_config") and type(config) in transformers.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING
    return transformers.AutoModelForSeq2SeqLM if is_qwen else None


def load_for_task(
    name: str | Path, task: VisionTask, *, device: torch.device | str | None = None, patience: float | None = None
) -> Classifier:
    """Load a trained detector, segmenter, or classifier of videos or sounds, in single precision and evaluation mode.

    ``name`` is a folder or a Hugging Face id, ``task`` comes from :func:`find_task`. The classifier's ``pixel_values``
    take single images.
    """
    name = os.fspath(name)
    processor, model, report = read_pretrained(name, partial(_read_for_task, task), patience)
    check_weights(name, model, report, f"model that {task.value}")
    return Classifier(model.eval().to(device or "cpu"), processor)


def _read_for_task(task: VisionTask, name: str, local_files_only: bool) -> tuple[Any, nn.Module, dict[str, Any]]:
    check_processor_file(name)
    loader = getattr(transformers, dict(SAVED_FOR.values())[task])
    return read_parts(name, local_files_only, partial(_read_processor, task), loader)


def _read_processor(task: VisionTask, name: str, **options: Any) -> Any:
    if task is VisionTask.SOUND:
        return transformers.AutoFeatureExtractor.from_pretrained(name, **options)
    try:
        return transformers.AutoImageProcessor.from_pretrained(name, **options)
    except (OSError, ValueError):
        if task is not VisionTask.VIDEO:
            raise
        return transformers.AutoVideoProcessor.from_pretrained(name, **options)  # V-JEPA 2 has no other


def load_answering(
    name: str | Path, *, device: torch.device | str | None = None, patience: float | None = None
) -> tuple[Any, Any]:
    """Load a model that generates text from pictures or speech, in the precision of its file, and its processor."""
    name = os.fspath(name)
    processor, model, report = read_pretrained(name, _read_answering, patience)
    if report["missing_keys"]:
        raise ValueError(
            f"{name} must be a trained model that answers, but its file lacks {first_of(report['missing_keys'])}. Pass "
            "a whole checkpoint."
        )
    return model.eval().to(device or "cpu"), processor


def _read_answering(name: str, local_files_only: bool) -> tuple[Any, Any, dict[str, Any]]:
    config = read_config(name, local_files_only)
    loader = _speech_loader(config)
    if loader is None and type(config) in transformers.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING:
        loader = transformers.AutoModelForImageTextToText
    if loader is None:
        raise ValueError(
            f"{name} must answer about pictures or sounds, but is of type {config.model_type!r}. Pass another."
        )
    options = {"config": config, "dtype": "auto", "ignore_mismatched_sizes": False}
    return read_parts(
        name, local_files_only, transformers.AutoProcessor.from_pretrained, loader, "processor", **options
    )
