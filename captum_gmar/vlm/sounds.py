"""Sounds as speech models get them, and the time of each of their tokens."""

from collections.abc import Mapping
from math import prod
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from captum_gmar.files.sounds import Sound, convert_sound, read_sound
from captum_gmar.vlm.answer_start import has_encoder
from captum_gmar.vlm.image_tokens import PictureTokens

SOUND_INPUTS = ("input_features", "input_values")
HOP, RATE = 0.01, 16_000  # seconds between spectra, and samples a second, of all models here
# Seconds of a sound token, for models that merge frames by other layers than convolutions of their encoder.
TOKEN_SECONDS = {"qwen2_audio": 0.04, "voxtral": 0.08, "granite_speech": 0.1}
TOKEN_SECONDS |= dict.fromkeys(("seamless_m4t", "seamless_m4t_v2"), 0.16)


def find_extractor(model: Any, processor: Any) -> Any:
    """Return the part of the processor that reads sounds; raise a ValueError if there is none."""
    extractor = getattr(processor, "feature_extractor", None) or getattr(processor, "audio_processor", processor)
    if not hasattr(extractor, "sampling_rate"):
        raise ValueError(
            f"processor must take sounds, where there is one, but got {type(processor).__name__}. Load the model's by "
            "AutoProcessor.from_pretrained."
        )
    return extractor


def prepare_sound(model: Any, processor: Any, sound: Any) -> Sound:
    """Return a WAV file, or samples with their rate, at the rate that the processor takes, cut where the model's window
    ends.
    """
    if _find_sound_input(model) is None:
        raise ValueError(f"model must take sounds, where there is one, but got {type(model).__name__}.")
    extractor = find_extractor(model, processor)
    window = getattr(extractor, "chunk_length", None) if model.config.model_type != "voxtral" else None
    if isinstance(sound, str | Path):
        return read_sound(sound, extractor.sampling_rate, window)
    if not isinstance(sound, tuple | list) or len(sound) != 2 or not isinstance(sound[1], Integral) or sound[1] <= 0:
        raise TypeError(f"sound must be a WAV file, or samples with their rate, but got {type(sound).__name__}.")
    return convert_sound(_mean_channel(sound[0]), int(sound[1]), extractor.sampling_rate, window)


def _mean_channel(samples: Any) -> npt.NDArray[np.float64]:
    """Return the mean of channels, (samples,); the shorter dimension has the channels."""
    array = np.asarray(samples)
    kind, half = array.dtype.kind, 2.0 ** (8 * array.dtype.itemsize - 1)
    if kind not in "fiu" or array.ndim not in (1, 2) or not array.size or not np.isfinite(array).all():
        what = f"shape {array.shape} of {array.dtype}"
        raise ValueError(f"sound must be finite numbers, (samples,) or (samples, channels), but got {what}.")
    values = array.astype(np.float64) if kind == "f" else (array - half * (kind == "u")) / half
    mean: npt.NDArray[np.float64] = values if values.ndim == 1 else values.mean(int(np.argmin(values.shape)))
    return mean


def sound_features(model: Any, processor: Any, sound: Sound) -> dict[str, Any]:
    """Return the inputs of a recogniser, which reads no prompt."""
    extractor, name = find_extractor(model, processor), _find_sound_input(model)
    try:
        returned = extractor(sound.samples, sampling_rate=sound.sampling_rate, return_tensors="pt")
    except Exception as error:  # extractors raise errors of many classes
        raise ValueError(f"{type(extractor).__name__} cannot be given the sound: {error}. Check it.") from error
    if name not in returned:
        raise ValueError(
            f"processor must fit the model, {type(model).__name__}, which reads {name}, but got {', '.join(returned)} "
            f"from {type(extractor).__name__}."
        )
    bins, expected = returned[name].shape, getattr(model.config, "num_mel_bins", None)
    if expected is not None and expected not in bins[1:]:
        raise ValueError(
            f"processor must fit the model, {type(model).__name__}, which reads {expected} mel bins, but got "
            f"{name} of shape {tuple(bins)} of {type(extractor).__name__}."
        )
    return {key: value for key, value in returned.items() if isinstance(value, Tensor)}


def _find_sound_input(model: Any) -> str | None:
    """Return the name of the model's sounds among its inputs, or None if it reads none."""
    if hasattr(model.config, "audio_config") or model.config.model_type in TOKEN_SECONDS:
        return "input_features"
    return model.main_input_name if model.main_input_name in SOUND_INPUTS else None


def sound_tokens(model: Any, arguments: Mapping[str, Any], length: int) -> list[PictureTokens] | None:
    """Return the tokens of the sound as one row in time, by the length of the encoder's sequence; None if unknown."""
    seconds = TOKEN_SECONDS.get(model.config.model_type)
    if has_encoder(model):
        return [PictureTokens(torch.arange(length)[None], True, seconds=seconds or _frame_seconds(model, arguments))]
    number = getattr(model.config, "audio_token_id", None)
    if seconds is None or number is None:
        return None
    return [PictureTokens((arguments["input_ids"][0] == number).nonzero().flatten()[None], seconds=seconds)]


def _frame_seconds(model: Any, arguments: Mapping[str, Any]) -> float:
    """Return the seconds of an encoder's frame: the strides of its convolutions times spectra or samples."""
    convolutions = [module for module in model.get_encoder().modules() if isinstance(module, nn.Conv1d)]
    step = 1 / RATE if "input_values" in arguments else HOP
    return step * prod(int(module.stride[0]) for module in convolutions)
