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

from captum_gmar.cli.terminal import CommandError

HUB_SECONDS = 10


def load_classifier(name: str) -> tuple[nn.Module, Any]:
    """A trained image classifier, in single precision and evaluation mode, and its image processor.

    Args:
        name: folder or Hugging Face id.

    Raises:
        CommandError: if it cannot be found or loaded, or is no trained image classifier.
    """
    options = {"trust_remote_code": False, "local_files_only": _is_local_only(name)}
    with _quiet():
        try:
            config = transformers.AutoConfig.from_pretrained(name, **options)
            _check_is_classifier(name, config)
            processor = transformers.AutoImageProcessor.from_pretrained(name, **options)
            model, loaded = transformers.AutoModelForImageClassification.from_pretrained(
                name, config=config, dtype=torch.float32, output_loading_info=True, **options
            )
        except CommandError:
            raise
        except Exception as error:  # whatever a damaged file makes of the many readers in between
            raise CommandError(f"--model {name}: {_reason(error)}") from error
    _check_is_trained(name, model, loaded["missing_keys"])
    return model.eval(), processor


def choose_device(name: str) -> torch.device:
    """The device called ``name``, if this machine has it; "auto" is the first GPU or else the CPU."""
    available = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "auto":
        return torch.device("cuda" if available else "cpu")
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= available:
        raise CommandError(f"--device {name}: PyTorch finds {available or 'no'} CUDA devices here")
    return device


def _is_local_only(name: str) -> bool:
    """Whether only files of this machine can be loaded: a folder, or the cache if the hub cannot be reached."""
    path = Path(name)
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise CommandError(f"--model {name}: this folder holds no model: it has no config.json")
        return True
    if path.exists():
        raise CommandError(f"--model {name}: must be a folder with config.json, weights and preprocessor_config.json")
    if not re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)?", name):  # cannot be an id
        raise CommandError(f"--model {name}: no such folder")
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
        raise CommandError(f"--model {name}: not an image classifier: its model type is {config.model_type!r}")


def _check_is_trained(name: str, model: nn.Module, missing: Iterable[str]) -> None:
    # Buffers are computed, and a mask token is not used in classification.
    untrained = sorted(key for key in {*missing} & dict(model.named_parameters()).keys() if "mask_token" not in key)
    if untrained:
        others = f" and {len(untrained) - 1} more" if len(untrained) > 1 else ""
        raise CommandError(f"--model {name}: not a trained image classifier: its file lacks {untrained[0]}{others}")


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
