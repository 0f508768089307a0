"""Files of videos and sounds as classifiers take them."""

from pathlib import Path

from torch import Tensor

from captum_gmar.classifier.image_classifier import PIXEL_NAMES, Classifier
from captum_gmar.engine.models.patch_grid import frame_count
from captum_gmar.files.sounds import Sound, read_sound
from captum_gmar.files.videos import Clip, read_video

FRAME, WINDOW = 0.01, 0.025  # seconds from one column of a spectrogram to the next, and of sound in each, as of Kaldi


def load_video(classifier: Classifier, path: str | Path) -> tuple[Clip, Tensor]:
    """Read as many frames of a video as the model takes, evenly apart, and return them with the pixels (1, frames,
    channels, height, width).
    """
    clip = read_video(path, frame_count(classifier.model) or 0)
    made = classifier.processor(list(clip.frames), return_tensors="pt")
    return clip, next(made[name] for name in PIXEL_NAMES if name in made).to(classifier.device)


def load_sound(classifier: Classifier, path: str | Path) -> tuple[Sound, Tensor, float]:
    """Read as much of a WAV file as the model takes, and return it with the spectrogram (1, time, bins) and the seconds
    that this covers, from the beginning.
    """
    processor = classifier.processor
    rate, columns = processor.sampling_rate, getattr(processor, "max_length", None)
    sound = read_sound(path, rate, None if columns is None else FRAME * (columns - 1) + WINDOW)
    if sound.seconds < WINDOW:
        raise ValueError(f"a sound must last at least {WINDOW} seconds, but got {sound.seconds:.3g}.")
    made = processor(sound.samples, sampling_rate=rate, return_tensors="pt")
    length = int((sound.seconds - WINDOW) / FRAME + 1e-6) + 1  # columns of the whole sound
    seconds = sound.seconds if columns is None or length <= columns else FRAME * columns
    return sound, made["input_values"].to(classifier.device), seconds
