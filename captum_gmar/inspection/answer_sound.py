"""A sound in the page of an answer: its spectrogram as a picture of one row, and the sound to hear."""

import base64
import wave
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from captum_gmar.files.sounds import Sound
from captum_gmar.inspection._html import image_data, round_values
from captum_gmar.visualization._heatmap import Array
from captum_gmar.visualization.spectrogram import grey_picture
from captum_gmar.vlm.attribution import AnswerAttribution
from captum_gmar.vlm.image_tokens import PictureTokens

SPACING, SPAN = 0.01, 0.025  # seconds between spectra, and of sound in each
HIGHEST, RANGE = 8000, 6.0  # Hz, and powers of e below the loudest: both as a listener needs
WIDTH, HEIGHT = 960, 200  # pixels


def sound_picture(words: AnswerAttribution) -> dict[str, Any]:
    """Return the sound as the page takes a picture, with each word's relevance of its tokens and its times."""
    sound, (tokens, *_) = words.sound, words.pictures or ()
    assert sound is not None
    assert isinstance(tokens, PictureTokens)
    assert tokens.seconds is not None
    relevance = words.picture_relevance()[:, 0].double().cpu().numpy()
    columns = min(relevance.shape[1], max(1, round(len(sound.samples) / sound.sampling_rate / tokens.seconds)))
    picture = ImageOps.invert(grey_picture(spectrogram(sound)).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC))
    size = {"width": WIDTH, "height": HEIGHT, "rows": 1, "columns": columns}
    return {
        **{"source": image_data(picture), **size, "seconds": tokens.seconds, "audio": wave_data(sound)},
        "relevance": [round_values(word[:columns], 4) for word in relevance],
        "times": [round_values(times, 4) for times in words.times().cpu().numpy()],
    }


def spectrogram(sound: Sound) -> Array:
    """Return log amplitudes (time, bins) of a sound up to 8 kHz, not far below the loudest."""
    hop, window = int(SPACING * sound.sampling_rate), int(SPAN * sound.sampling_rate)
    samples = np.pad(sound.samples, (window // 2, window))
    frames = np.lib.stride_tricks.sliding_window_view(samples, window)[::hop] * np.hanning(window)
    amplitudes = np.abs(np.fft.rfft(frames, 2 * window))[:, : round(2 * window * HIGHEST / sound.sampling_rate) + 1]
    levels = np.log(amplitudes + 1e-6)
    loud: Array = levels.clip(levels.max() - RANGE)
    return loud


def wave_data(sound: Sound) -> str:
    """Return a sound as part of a page: a WAV file of 16 bits."""
    numbers = (sound.samples.clip(-1, 1) * 32767).round().astype("<i2")
    with wave.open(buffer := BytesIO(), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(sound.sampling_rate)
        file.writeframes(numbers.tobytes())
    return f"data:audio/wav;base64,{base64.b64encode(buffer.getvalue()).decode()}"
