"""Samples of WAV files, at the rate that a model takes."""

import struct
import wave

import numpy as np
import pytest

from captum_gmar.files.sounds import read_sound, resample_sound

pytestmark = pytest.mark.fault

HALF = np.array([0.5, -0.5, 0, -1])


def save(path, samples, width, channels=1, rate=16000):
    with wave.open(str(path), "wb") as sound:
        sound.setnchannels(channels)
        sound.setsampwidth(width)
        sound.setframerate(rate)
        sound.writeframes(samples.tobytes())
    return path


def save_raw(path, samples, format, width, rate=16000, says=None):
    """Write a WAV file by hand, after another part, which is left out in reading."""
    sub = struct.pack("<HHIH14s", 22, 8 * width, 0, 3, bytes(14)) if format == 0xFFFE else b""
    header = struct.pack("<HHIIHH", format, 1, rate, rate * width, width, 8 * width) + sub
    other = b"LIST" + struct.pack("<I", 3) + b"abc\0"
    parts = b"fmt " + struct.pack("<I", len(header)) + header
    parts += b"data" + struct.pack("<I", len(samples) if says is None else says) + samples
    path.write_bytes(b"RIFF" + struct.pack("<I", 4 + len(other + parts)) + b"WAVE" + other + parts)
    return path


def test_samples_of_each_width_and_the_mean_of_channels(tmp_path):
    for width, samples in {
        1: (HALF * 128 + 128).astype(np.uint8),
        2: (HALF * 2**15).astype(np.int16),
        4: (HALF * 2**31).astype(np.int32),
    }.items():
        assert read_sound(save(tmp_path / "a.wav", samples, width), 16000).samples == pytest.approx(HALF)
    both = (HALF * 2**15).astype(np.int16)
    assert read_sound(save(tmp_path / "b.wav", both, 2, channels=2), 16000).samples == pytest.approx([0, -0.5])


def test_24_bits_and_floats(tmp_path):
    numbers = [3, -3, 2**23 - 1, -(2**23)]
    bits = b"".join(number.to_bytes(3, "little", signed=True) for number in numbers)
    sound = read_sound(save_raw(tmp_path / "a.wav", bits, 1, 3), 16000)
    assert sound.samples.tolist() == [number / 2**23 for number in numbers]
    for kind, width, format in (("<f4", 4, 3), ("<f8", 8, 3), ("<f4", 4, 0xFFFE)):
        file = save_raw(tmp_path / "b.wav", HALF.astype(kind).tobytes(), format, width)
        assert read_sound(file, 16000).samples.tolist() == HALF.tolist()
    streamed = save_raw(tmp_path / "c.wav", bits, 1, 3, says=2**32 - 1)  # as recorders write that cannot go back
    assert len(read_sound(streamed, 16000).samples) == 4


@pytest.mark.parametrize("given", [8000, 11025, 22050, 44100, 48000])
def test_another_rate_is_resampled(tmp_path, given):
    """A tone is the same tone, and what the model's rate cannot hold is gone, not folded back."""

    def tone(rate, hertz):
        times = np.arange(2 * rate) / rate
        return 0.5 * np.sin(2 * np.pi * hertz * times) * np.sin(np.pi * times / 2) ** 2  # which begins and ends softly

    sound = read_sound(save(tmp_path / "a.wav", (tone(given, 440) * 2**15).astype(np.int16), 2, rate=given), 16000)
    assert (sound.rate, sound.seconds, len(sound.samples)) == (given, 2, 32000)
    assert sound.samples == pytest.approx(tone(16000, 440), abs=1e-4)
    if given > 16000:
        above = resample_sound(tone(given, 9000), given, 16000)
        assert np.abs(above).max() < 1e-4


def test_the_beginning_of_a_sound_is_that_of_the_whole(tmp_path):
    noise = np.random.default_rng(0).normal(0, 3000, 4 * 44100).astype(np.int16)
    file = save(tmp_path / "a.wav", noise, 2, rate=44100)
    whole, beginning = read_sound(file, 16000), read_sound(file, 16000, 0.5)
    assert (whole.seconds, beginning.seconds) == (4, 4)
    assert len(beginning.samples) == 8000
    assert beginning.samples == pytest.approx(whole.samples[:8000], abs=1e-3)
    same = save(tmp_path / "b.wav", noise, 2)
    assert np.array_equal(read_sound(same, 16000, 0.5).samples, read_sound(same, 16000).samples[:8000])


def test_what_cannot_be_read_is_told(tmp_path):
    whole = save(tmp_path / "a.wav", np.zeros(40, np.int16), 2).read_bytes()
    none = struct.pack("<HHIIHH", 1, 0, 16000, 0, 0, 16)
    for content, message in (
        (b"no sound", "cannot be read as a WAV file: it does not begin as one does"),
        (b"", "the file is empty"),
        (whole[:30], "cannot be read as a WAV file: its header is cut"),
        (whole[:40], "cannot be read as a WAV file: it holds no samples"),
        (whole[:12], "cannot be read as a WAV file: it has no header"),
        (whole[:60], "cannot be read as a WAV file: it ends too early, after 16 of 80 bytes of samples"),
        (b"RIFF\0\0\0\0WAVEfmt \x10\0\0\0" + none, "its header says 0 channels, 16000 samples a second"),
    ):
        (tmp_path / "b.wav").write_bytes(content)
        with pytest.raises(OSError, match=rf"b\.wav .*{message}"):
            read_sound(tmp_path / "b.wav", 16000)
    with pytest.raises(OSError, match=r"c\.wav cannot be read: no such file"):
        read_sound(tmp_path / "c.wav", 16000)
    with pytest.raises(OSError, match=r"its samples are of format 7 and 8 bits, and only whole numbers of 8, 16, 24"):
        read_sound(save_raw(tmp_path / "d.wav", bytes(8), 7, 1), 16000)
    with pytest.raises(OSError, match="it holds no samples"):
        read_sound(save(tmp_path / "e.wav", np.zeros(0, np.int16), 2), 16000)
    with pytest.raises(OSError, match="it holds NaN or infinity"):
        read_sound(save_raw(tmp_path / "f.wav", np.array([np.nan], "<f4").tobytes(), 3, 4), 16000)
