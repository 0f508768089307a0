"""Loading an image classifier and its image processor from a folder or the Hugging Face hub."""

import os
import re
import ssl
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

import torch
import transformers
from torch import nn

from captum_gmar.classifier.image_classifier import Classifier

HUB_SECONDS = 10


def load_classifier(
    name: str | Path, *, size: int | None = None, device: torch.device | str | None = None
) -> Classifier:
    """
    Loads a trained image classifier and its image processor, in single precision and evaluation mode.

    Args:
        name (str or Path): Folder or Hugging Face id.
        size (int, optional): Run at size × size pixels, a multiple of the model's patch size.
            Default: None, the image processor's own
        device (torch.device or str, optional): Where the model goes, as :func:`choose_device` gives it.
            Default: None, the CPU

    Returns:
        Classifier: With its **model** and **processor**.

    Raises:
        OSError: if it cannot be found or loaded; the message names it.
        ValueError: if it is no trained image classifier, or cannot be run at this size.
    """
    name = str(name)
    options = {"trust_remote_code": False, "local_files_only": _is_local_only(name)}
    with _quiet():
        with _named(name):
            config = transformers.AutoConfig.from_pretrained(name, **options)
        _check_is_classifier(name, config)
        with _named(name):
            processor = transformers.AutoImageProcessor.from_pretrained(name, **options)
            model, loaded = transformers.AutoModelForImageClassification.from_pretrained(
                name, config=config, dtype=torch.float32, output_loading_info=True, **options
            )
    _check_is_trained(name, model, loaded["missing_keys"])
    return Classifier(model.eval().to(device or "cpu"), processor, size)


@contextmanager
def _named(name: str) -> Iterator[None]:
    """Tells in one line what a damaged file makes of the many readers in between."""
    try:
        yield
    except Exception as error:
        raise OSError(f"{name}: {_reason(error)}") from error


def choose_device(name: str) -> torch.device:
    """The device called ``name``, if this machine has it; "auto" is the first GPU or else the CPU."""
    available = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "auto":
        return torch.device("cuda" if available else "cpu")
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= available:
        raise ValueError(
            f"device must be one that PyTorch finds here, with {available or 'no'} CUDA devices. Got {name!r} instead."
        )
    return device


def _is_local_only(name: str) -> bool:
    """Whether only files of this machine can be loaded: a folder, or the cache if the hub cannot be reached."""
    path = Path(name)
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise OSError(f"{name}: this folder holds no model: it has no config.json")
        return True
    if path.exists():
        raise OSError(f"{name}: must be a folder with config.json, weights and preprocessor_config.json")
    if not re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)?", name):  # cannot be an id
        raise OSError(f"{name}: no such folder")
    return not _reaches_hub()


def _reaches_hub() -> bool:
    """Asked once and with a short wait: transformers itself would try an unreachable hub for most of a minute."""
    hub = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    try:
        urlopen(Request(hub, method="HEAD"), timeout=HUB_SECONDS).close()
    except HTTPError:
        return True
    except URLError as error:
        return isinstance(error.reason, ssl.SSLError)  # transformers may know other certificates
    except OSError:
        return False
    return True


def _check_is_classifier(name: str, config: Any) -> None:
    if type(config) not in transformers.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING:
        raise ValueError(f"{name}: not an image classifier: its model type is {config.model_type!r}")


def _check_is_trained(name: str, model: nn.Module, missing: Iterable[str]) -> None:
    # Buffers are computed, and a mask token is not used in classification.
    untrained = sorted(key for key in {*missing} & dict(model.named_parameters()).keys() if "mask_token" not in key)
    if untrained:
        others = f" and {len(untrained) - 1} more" if len(untrained) > 1 else ""
        raise ValueError(f"{name}: not a trained image classifier: its file lacks {untrained[0]}{others}")


def _reason(error: Exception) -> str:
    text = str(error)
    if "image processor" in text:
        return "it has no image processor: preprocessor_config.json is missing or cannot be read"
    if isinstance(error, OSError) and "connect" in text:
        return "no such folder, and the Hugging Face hub cannot be reached to look for a model of this name"
    if "not a valid model identifier" in text:
        return "no such folder, and no such model on the Hugging Face hub"
    lines = [line for line in text.splitlines() if line.strip()]
    return f"cannot be loaded: {lines[0] if lines else type(error).__name__}"


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps what transformers logs and its progress bars off the terminal."""
    logging = transformers.utils.logging
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
