"""Videos and sounds as a classifier takes them: by hand-made frames and a tone of known length."""

import wave

import numpy as np
import pytest
from PIL import Image
from task_models import make

from captum_gmar.classifier import Classifier
from captum_gmar.classifier.recordings import load_sound, load_video


def test_frames_evenly_apart(tmp_path):
    frames = [Image.new("RGB", (40, 30), (25 * number,) * 3) for number in range(10)]
    frames[0].save(tmp_path / "clip.gif", save_all=True, append_images=frames[1:], duration=80)
    film = Classifier(*make()["film"])
    clip, pixels = load_video(film, tmp_path / "clip.gif")
    assert pixels.shape == (1, 4, 3, 24, 24)
    greys = [round(255 * float(film.photo(frame).mean()) / 25) for frame in pixels[0]]
    assert (greys, clip.frame_count) == ([0, 3, 6, 9], 10)


@pytest.mark.parametrize(("samples", "seen"), [(6000, 0.375), (6640 + 159, 6799 / 16000), (6640 + 160, 0.4)])
def test_the_seconds_that_a_spectrogram_covers(samples, seen, tmp_path):
    """The model takes 40 columns, 0.4 seconds, of which the last reaches 0.415 seconds."""
    with wave.open(str(tmp_path / "tone.wav"), "wb") as tone:
        tone.setparams((1, 2, 16000, 0, "NONE", ""))
        tone.writeframes((np.sin(np.arange(samples) * 0.3) * 2e4).astype(np.int16).tobytes())
    sound, spectrogram, seconds = load_sound(Classifier(*make()["sound"]), tmp_path / "tone.wav")
    assert spectrogram.shape == (1, 40, 16)
    assert (sound.seconds, seconds) == pytest.approx((samples / 16000, seen))
