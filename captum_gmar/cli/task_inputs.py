"""Sounds and videos as models take them, and what of them models do not take."""

from pathlib import Path

from torch import Tensor

from captum_gmar.classifier import Classifier
from captum_gmar.engine.models.patch_grid import frames_of
from captum_gmar.files.sounds import read_sound
from captum_gmar.files.videos import Clip, read_video

FRAME, WINDOW = 0.01, 0.025  # seconds from one column of a spectrogram to the next, and of sound in each, as of Kaldi


def load_sound(classifier: Classifier, path: Path) -> tuple[Tensor, list[str]]:
    """Return the spectrogram (1, time, bins) of a sound, and lines that say what was left out of it or changed."""
    processor = classifier.processor
    rate, columns = processor.sampling_rate, getattr(processor, "max_length", None)
    longest = None if columns is None else FRAME * (columns - 1) + WINDOW
    sound = read_sound(path, rate, longest)
    if sound.seconds < WINDOW:
        raise ValueError(f"a sound must last at least {WINDOW} seconds. Got {sound.seconds:.3g} instead.")
    made = processor(sound.samples, sampling_rate=rate, return_tensors="pt")
    lines = []
    made_of_all = int((sound.seconds - WINDOW) / FRAME + 1e-6) + 1
    if columns is not None and made_of_all > columns:
        lines.append(f"  seen       the first {FRAME * columns:.4g} of {sound.seconds:.4g} seconds")
    if sound.rate != rate:
        lines.append(f"  resampled  from {sound.rate} to {rate} samples a second")
    return made["input_values"].to(classifier.device), lines


def load_video(classifier: Classifier, path: Path) -> tuple[Clip, list[str]]:
    """Return the frames of a video that the model takes, and the line that says how many it does not."""
    clip = read_video(path, frames_of(classifier.model) or 0)
    taken = len(clip.frames)
    return clip, [f"  seen       {taken} of {clip.of_frames} frames, evenly apart"] if taken < clip.of_frames else []
