"""Loading of image classifiers and their image processors from a folder or the Hugging Face hub."""

import json
import os
import re
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
import transformers
from huggingface_hub import constants, get_session
from torch import nn

from captum_gmar.classifier.image_classifier import Classifier
from captum_gmar.classifier.text_scores import TextScores

T = TypeVar("T")
UNREACHABLE = "no such folder, and the Hugging Face hub cannot be reached to look for a model of this name"
# Fields of a config without which no model can be made.
COUNTS = ("image_size", "patch_size", "num_channels", "hidden_size", "num_hidden_layers", "num_attention_heads")


def load_classifier(
    name: str | Path,
    *,
    size: int | None = None,
    device: torch.device | str | None = None,
    patience: float | None = None,
    texts: Sequence[str] = (),
) -> Classifier:
    """Load a trained image classifier and its image processor, in single precision and evaluation mode.

    A folder or a model in the cache of this machine is read without a connection to the hub.

    Args:
        name (str or Path): Folder or Hugging Face id.
        size (int, optional): Run at size × size pixels, a multiple of the model's patch size.
            Default: None, the image processor's own
        device (torch.device or str, optional): Where the model goes, as :func:`choose_device` gives it.
            Default: None, the CPU
        patience (float, optional): Seconds for the hub to answer at all, where it is asked.
            Default: None, as long as its client tries, which is half a minute
        texts (sequence of str, optional): The classes, of a model that scores images against texts, such as CLIP, which
            is loaded with its tokenizer and becomes a :class:`~captum_gmar.classifier.text_scores.TextScores`.
            Default: none, the model's own classes

    Returns:
        Classifier: With its **model** and **processor**.

    Raises:
        OSError: if it cannot be found or read; the message names it.
        ValueError: if it is no trained image classifier whose weights fit its config, or cannot be run at this size;
            with texts, if it scores none, or not these.

    Example::

        >>> from captum_gmar.classifier import load_classifier
        >>> from captum_gmar.demo import load_scene, model_folder
        >>> with model_folder() as folder:
        ...     classifier = load_classifier(folder)
        >>> logits = classifier.logits(classifier.pixel_values(load_scene(3).image))
        >>> classifier.labels[int(logits.argmax())]
        'dotted triangle'
    """
    if not isinstance(name, str | os.PathLike):
        raise TypeError(f"name must be a folder or a Hugging Face id, but got {name!r}.")
    name = os.fspath(name)
    processor, model, report = read_pretrained(name, partial(_read, is_text_model=bool(texts)), patience)
    check_weights(name, model, report)
    model = model.eval().to(device or "cpu")
    if not texts:
        return Classifier(model, processor, size)
    with quiet():  # tokenizers log what TextScores says of a text that is too long
        return Classifier(TextScores(model, processor, texts), processor.image_processor, size)


def choose_device(name: str) -> torch.device:
    """Return the device called ``name``, if this machine has it.

    Args:
        name (str): "auto", which is the first accelerator or else the CPU, "cpu", or a kind of accelerator that PyTorch
            knows, such as "cuda", "mps" or "xpu", and the number of one, "cuda:1".

    Raises:
        ValueError: if PyTorch does not find it here.
    """
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    if name == "auto":
        return accelerator or torch.device("cpu")
    kind, _, number = str(name).partition(":")
    available = {"cpu": 1}
    if accelerator is not None:
        available[accelerator.type] = torch.accelerator.device_count()
    if not (number or "0").isdecimal() or int(number or 0) >= available.get(kind, 0):
        kinds = " or ".join(f"{kind} ({count})" for kind, count in available.items())
        raise ValueError(f"device must be one that PyTorch finds here, of {kinds}, but got {name!r}.")
    return torch.device(name)


def read_pretrained(name: str, read: Callable[[str, bool], T], patience: float | None) -> T:
    """Read a folder or a Hugging Face id, and connect to the hub only if this machine has no copy.

    The second argument of ``read`` is true if only files of this machine may be read. The hub has ``patience`` seconds
    to answer at all.
    """
    is_folder = _is_folder(name)
    with quiet():
        try:
            return read(name, True)
        except OSError:
            if is_folder:
                raise
            if patience is not None:
                _check_reachable(name, patience)
            return read(name, False)


def _is_folder(name: str) -> bool:
    """Return whether the name is a folder of this machine; else it can be an id."""
    path = Path(name)
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise OSError(f"{name} cannot be loaded: it has no config.json. Pass a folder of save_pretrained.")
        return True
    if path.exists():
        raise OSError(f"{name} cannot be loaded: it is no folder. Pass one with config.json and weights.")
    if not re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)?", name):
        raise OSError(f"{name} cannot be loaded: no such folder. Check the path.")
    return False


def _check_reachable(name: str, patience: float) -> None:
    """Check with one request that the hub answers; its own client would retry many times."""
    if constants.HF_HUB_OFFLINE:
        return
    try:
        get_session().head(constants.ENDPOINT, timeout=patience)
    except Exception as error:
        raise OSError(f"{name} cannot be loaded: {UNREACHABLE}. Check the path.") from error


def _read(name: str, local_files_only: bool, is_text_model: bool) -> tuple[Any, nn.Module, dict[str, Any]]:
    config = read_config(name, local_files_only)
    _check_config(name, config, is_text_model)
    check_processor_file(name)
    processor_class = transformers.AutoProcessor if is_text_model else transformers.AutoImageProcessor
    model_class = _model_class(is_text_model)
    return read_parts(name, local_files_only, processor_class.from_pretrained, model_class, config=config)


def read_config(name: str, local_files_only: bool) -> Any:
    """Return the config of a model."""
    with named_failure(name, "config.json"):
        return transformers.AutoConfig.from_pretrained(name, trust_remote_code=False, local_files_only=local_files_only)


def read_parts(
    name: str,
    local_files_only: bool,
    read_processor: Callable[..., Any],
    model_class: Any,
    part: str = "preprocessor_config.json",
    **options: Any,
) -> tuple[Any, Any, dict[str, Any]]:
    """Return the processor, the model, and which of its weights were missing or left over."""
    source = {"trust_remote_code": False, "local_files_only": local_files_only}
    with named_failure(name, part):
        processor = read_processor(name, **source)
    # check_weights reports sizes that do not fit in one line; transformers would print a table.
    options = {"dtype": torch.float32, "ignore_mismatched_sizes": True, **source, **options}
    with named_failure(name, "model"):
        model, report = model_class.from_pretrained(name, output_loading_info=True, **options)
    return processor, model, report


def check_processor_file(name: str) -> None:
    """Check that a folder has settings of the image processor, as transformers would make some up."""
    try:
        settings = json.loads((Path(name) / "preprocessor_config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):  # transformers' own reader reports these
        return
    if not isinstance(settings, dict) or not settings:
        held = str(settings) if not settings else type(settings).__name__
        raise ValueError(
            f"{name}: its preprocessor_config.json must hold settings, such as the size of images, but got {held}. "
            "Save the model's image processor there."
        )


@contextmanager
def named_failure(name: str, part: str) -> Iterator[None]:
    """Raise errors of damaged files within the block as one line that names the file."""
    try:
        yield
    except Exception as error:
        raise OSError(f"{name} cannot be loaded: {_reason(error, part).rstrip('.')}. Check its files.") from error


def _reason(error: Exception, part: str) -> str:
    text = str(error)
    if "image processor" in text:
        return "it has no image processor: preprocessor_config.json is missing or cannot be read"
    if isinstance(error, OSError) and ("connect" in text or "offline mode" in text):
        return UNREACHABLE
    if "not a valid model identifier" in text:
        return "no such folder, and no such model on the Hugging Face hub"
    lines = [line.strip() for line in text.splitlines() if line.strip()] or ["no reason given"]
    reason = " ".join(lines[: 2 if lines[0].endswith(":") else 1])
    kind = "" if isinstance(error, OSError | ValueError) else f"{type(error).__name__}: "
    return f"its {part} fails, {kind}{reason}"


def _model_class(is_text_model: bool) -> Any:
    if is_text_model:
        return transformers.AutoModelForZeroShotImageClassification
    return transformers.AutoModelForImageClassification


def _check_config(name: str, config: Any, is_text_model: bool) -> None:
    if type(config) not in _model_class(is_text_model)._model_mapping:
        if is_text_model:
            raise ValueError(
                f"{name} must score images against texts, but is of type {config.model_type!r}. Pass CLIP, SigLIP or "
                "one of their kind."
            )
        raise ValueError(
            f"{name} must be an image classifier, but is of type {config.model_type!r}. Pass another model, or --text "
            "for CLIP and its kind."
        )
    vision = getattr(config, "vision_config", config)
    for key in COUNTS:
        value = getattr(vision, key, None)
        counts = value if isinstance(value, list | tuple) else [value]
        if any(isinstance(count, int) and count < 1 for count in counts):
            raise ValueError(f"{name}: its config.json must have a {key} above zero, but got {value}.")


def check_weights(
    name: str, model: nn.Module, report: Mapping[str, Collection[Any]], kind: str = "image classifier"
) -> None:
    """Check that the file has the model's weights, in their shapes, no fewer and no more."""
    parameters = dict(model.named_parameters())
    # Buffers are computed, and a mask token is not used in classification.
    untrained = [key for key in {*report["missing_keys"]} & parameters.keys() if "mask_token" not in key]
    if untrained:
        raise ValueError(f"{name} must be a trained {kind}, but its file lacks {first_of(untrained)}. Train it first.")
    # transformers 4 reports the keys alone, 5 also the shapes in the file and by the config.
    mismatched = {row if isinstance(row, str) else row[0]: row for row in report["mismatched_keys"]}
    if mismatched:
        row = mismatched[min(mismatched)]
        shapes = "" if isinstance(row, str) else f", of shape {(*row[1],)} in the file and {(*row[2],)} by the config"
        raise ValueError(
            f"{name} cannot be loaded: its weights do not fit its config.json, {first_of(mismatched)}{shapes}. Take "
            "both from one checkpoint."
        )
    unused = [*report["unexpected_keys"]]
    kinds = {_without_numbers(key) for key in parameters}
    more_layers = [key for key in unused if _without_numbers(key) in kinds]
    if more_layers:
        raise ValueError(
            f"{name} cannot be loaded: its config.json leaves out layers of its file, {first_of(more_layers)}. Take "
            "both from one checkpoint."
        )
    if unused:
        warnings.warn(f"{name}: weights of its file are not used: {first_of(unused)}", stacklevel=3)


def first_of(keys: Collection[str]) -> str:
    """
    >>> first_of(["norm.weight", "norm.bias"])
    'norm.bias and 1 more'
    """
    others = f" and {len(keys) - 1} more" if len(keys) > 1 else ""
    return f"{min(keys)}{others}"


def _without_numbers(key: str) -> str:
    """
    >>> _without_numbers("encoder.layer.11.norm.bias")
    'encoder.layer.#.norm.bias'
    """
    return re.sub(r"(?<=\.)\d+(?=\.)", "#", key)


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the log and the progress bars of transformers off the terminal within the block."""
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
