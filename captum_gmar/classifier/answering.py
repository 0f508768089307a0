"""Loading a model that answers about pictures, and its processor, from a folder or the Hugging Face hub."""

import os
from pathlib import Path
from typing import Any

import torch
import transformers

from captum_gmar.classifier.loading import first_of, named_failure, read_pretrained


def load_answering(
    name: str | Path, *, device: torch.device | str | None = None, patience: float | None = None
) -> tuple[Any, Any]:
    """
    Loads a model that generates text from pictures, in the precision of its file and in evaluation mode.

    Args:
        name (str or Path): Folder or Hugging Face id.
        device (torch.device or str, optional): Where the model goes.
            Default: None, the CPU
        patience (float, optional): Seconds for the hub to answer at all, where it is asked.
            Default: None, as long as its client tries

    Returns:
        tuple: The **model** and its **processor**.

    Raises:
        OSError: if it cannot be found or read; the message names it.
        ValueError: if it is no trained model that generates text from pictures.
    """
    name = os.fspath(name)
    processor, model, report = read_pretrained(name, _read_answering, patience)
    if report["missing_keys"]:
        raise ValueError(f"{name}: not a trained model that answers: its file lacks {first_of(report['missing_keys'])}")
    return model.eval().to(device or "cpu"), processor


def _read_answering(name: str, local_files_only: bool) -> tuple[Any, Any, dict[str, Any]]:
    """Processor, model, and which of its weights were missing or left over."""
    options: dict[str, Any] = {"trust_remote_code": False, "local_files_only": local_files_only}
    with named_failure(name, "config.json"):
        config = transformers.AutoConfig.from_pretrained(name, **options)
    if type(config) not in transformers.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING:
        raise ValueError(f"{name}: not a model that answers about pictures: its model type is {config.model_type!r}")
    with named_failure(name, "processor"):
        processor = transformers.AutoProcessor.from_pretrained(name, **options)
    options |= {"dtype": "auto", "output_loading_info": True}
    with named_failure(name, "model"):
        model, report = transformers.AutoModelForImageTextToText.from_pretrained(name, config=config, **options)
    return processor, model, report
