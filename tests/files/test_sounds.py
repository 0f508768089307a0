"""Samples of WAV files."""

import wave
from pathlib import Path

import numpy as np
import pytest

from captum_gmar.files.sounds import read_sound


def save(path: Path, samples: np.ndarray, width: int, channels: int = 1, rate: int = 16000) -> Path:
    with wave.open(str(path), "wb") as sound:
        sound.setnchannels(channels)
        sound.setsampwidth(width)
        sound.setframerate(rate)
        sound.writeframes(samples.tobytes())
    return path


def test_samples_of_each_width_and_the_mean_of_channels(tmp_path: Path) -> None:
    half = np.array([0.5, -0.5, 0, -1])
    for width, samples in {
        1: (half * 128 + 128).astype(np.uint8),
        2: (half * 2**15).astype(np.int16),
        4: (half * 2**31).astype(np.int32),
    }.items():
        assert read_sound(save(tmp_path / "a.wav", samples, width), 16000) == pytest.approx(half)
    both = (half * 2**15).astype(np.int16)
    assert read_sound(save(tmp_path / "b.wav", both, 2, channels=2), 16000) == pytest.approx([0, -0.5])


def test_what_cannot_be_read_is_told(tmp_path: Path) -> None:
    sound = save(tmp_path / "a.wav", np.zeros(4, np.int16), 2, rate=8000)
    with pytest.raises(ValueError, match=r"the 16000 samples a second that the model takes\. Got 8000 instead"):
        read_sound(sound, 16000)
    (tmp_path / "b.wav").write_text("no sound")
    with pytest.raises(OSError, match=r"b\.wav: cannot be read as a WAV file"):
        read_sound(tmp_path / "b.wav", 16000)
    with pytest.raises(OSError, match=r"c\.wav: no such file"):
        read_sound(tmp_path / "c.wav", 16000)
    with pytest.raises(OSError, match="samples of 24 bits cannot be read"):
        read_sound(save(tmp_path / "d.wav", np.zeros(3, np.uint8), 3), 16000)
