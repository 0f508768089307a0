"""Files of videos and sounds as classifiers take them."""

from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from captum_gmar.classifier.image_classifier import PIXEL_NAMES, Classifier
from captum_gmar.engine.models.patch_grid import frames_of
from captum_gmar.files.sounds import read_sound
from captum_gmar.files.videos import Clip, read_video

FRAME, WINDOW = 0.01, 0.025  # seconds from one column of a spectrogram to the next, and of sound in each, as of Kaldi


class VideoInput(NamedTuple):
    """A video as a classifier takes it: its frames, and pixels (1, frames, channels, height, width)."""

    clip: Clip
    pixels: Tensor


class SoundInput(NamedTuple):
    """A sound as a classifier takes it.

    Attributes:
        spectrogram: (1, time, bins).
        seconds: length of the sound in its file.
        seen: seconds of it, from the beginning, that the spectrogram holds.
        rate: samples a second in the file, which are resampled to those that the model takes.
    """

    spectrogram: Tensor
    seconds: float
    seen: float
    rate: int


def load_video(classifier: Classifier, path: str | Path) -> VideoInput:
    """
    Read as many frames of a video as the model takes, evenly apart.

    Raises:
        OSError: if the file cannot be read as a video.
        ValueError: if it has fewer frames.
    """
    clip = read_video(path, frames_of(classifier.model) or 0)
    made = classifier.processor(list(clip.frames), return_tensors="pt")
    return VideoInput(clip, next(made[name] for name in PIXEL_NAMES if name in made).to(classifier.device))


def load_sound(classifier: Classifier, path: str | Path) -> SoundInput:
    """
    Read as much of a WAV file as the model takes.

    Raises:
        OSError: if the file cannot be read as a sound.
        ValueError: if it is shorter than one column of a spectrogram.
    """
    processor = classifier.processor
    rate, columns = processor.sampling_rate, getattr(processor, "max_length", None)
    sound = read_sound(path, rate, None if columns is None else FRAME * (columns - 1) + WINDOW)
    if sound.seconds < WINDOW:
        raise ValueError(f"a sound must last at least {WINDOW} seconds. Got {sound.seconds:.3g} instead.")
    made = processor(sound.samples, sampling_rate=rate, return_tensors="pt")
    made_of_all = int((sound.seconds - WINDOW) / FRAME + 1e-6) + 1
    seen = sound.seconds if columns is None or made_of_all <= columns else FRAME * columns
    return SoundInput(made["input_values"].to(classifier.device), sound.seconds, seen, sound.rate)
