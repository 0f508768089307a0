"""A page of HTML of an answer: touch a word to see what of the pictures fed it, a patch to see the words that it fed.

It holds everything that it needs, so it works without a server: from a file, and in a saved notebook.
"""

import base64
import wave
from collections.abc import Sequence
from io import BytesIO
from math import exp
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from captum_gmar.files.sounds import Sound
from captum_gmar.inspection._html import Page, fill_page, image_data, round_values, shrink
from captum_gmar.visualization._heatmap import Array, Pixels, photo_of
from captum_gmar.visualization.spectrogram import grey_picture
from captum_gmar.vlm.attribution import AnswerAttribution
from captum_gmar.vlm.image_tokens import PictureTokens
from captum_gmar.vlm.words import group_words

SPACING, SPAN = 0.01, 0.025  # seconds between spectra, and of sound in each
HIGHEST, RANGE = 8000, 6.0  # Hz, and powers of e below the loudest: both as a listener needs
WIDTH, HEIGHT = 960, 200  # pixels


class AnswerPage(Page):
    """An answer, each word with its map, as a page of HTML; in Jupyter the last line of a cell shows it.

    Args:
        attribution (AnswerAttribution): of an answer; its tokens are put together to words.
        images (Tensor, numpy.ndarray, PIL.Image.Image, or a sequence of them): the pictures, as
            :func:`~captum_gmar.visualize_attribution` takes them. None for a sound, which the attribution holds.
        prompt (str, optional): what the model was asked, for the page to say. Default: "".
        model (str, optional): the name of the model, for the page to say. Default: "".

    Raises:
        ValueError: if there are not as many images as pictures in the attribution, or it is not known which of their
            tokens stand for which places.
    """

    title = "What fed each word"

    def __init__(
        self, attribution: AnswerAttribution, images: Pixels | Sequence[Pixels] = (), prompt: str = "", model: str = ""
    ) -> None:
        pictures = list(images) if isinstance(images, Sequence) else [images]
        if attribution.pictures is None:
            raise ValueError("attribution must say which image token is for which position, but its model does not.")
        expected = len(attribution.pictures) if attribution.sound is None else 0
        if len(pictures) != expected:
            raise ValueError(f"images must be the {expected} of the attribution, but got {len(pictures)}.")
        words = attribution.words()
        maps = [_word_maps(words, number, image) for number, image in enumerate(pictures)]
        shares = words.shares()
        picture_evidence = shares["pictures"] * words.totals
        content = {
            "words": words.tokens,
            "first": int((picture_evidence if attribution.pictures else words.totals).argmax()),
            "shares": {name: [round(share, 3) for share in part.tolist()] for name, part in shares.items()},
            "pictures": maps if attribution.sound is None else [_sound_picture(words)],
            "model": model,
            "gains": None if words.gains is None else round_values(words.gains.double().cpu().numpy(), 3),
            **_prompt_words(words, prompt),
            **_answer_words(attribution, words),
        }
        rather = "" if attribution.contrast is None else f", rather than “{attribution.contrast}”"
        self.html = fill_page("answer_page.html", content, {"RATHER": rather})


def _prompt_words(words: AnswerAttribution, prompt: str) -> dict[str, Any]:
    """Return the words of the prompt and each answer's word's relevance of them; none where its tokens are unknown."""
    texts = {place: text for place, text in enumerate(words.prompt_tokens) if text}
    if not texts:
        return {"prompt": [prompt], "promptRelevance": None}
    relevance = words.relevance[:, list(texts)]
    spans = group_words(list(texts.values()))
    parts = ["".join(list(texts.values())[span]).strip() for span in spans]
    return {"prompt": parts, "promptRelevance": _sum_spans(relevance, spans)}


def _answer_words(attribution: AnswerAttribution, words: AnswerAttribution) -> dict[str, Any]:
    """Return each word's relevance of the words before it, and its probability; none of phrases or with a contrast."""
    if attribution.is_of_words:
        return {"earlierRelevance": None, "probabilities": None}
    spans = group_words(attribution.tokens)
    earlier = _sum_spans(words.answer_relevance, spans)
    logarithms = torch.nn.functional.logsigmoid(attribution.scores)
    probabilities = None if attribution.contrast is not None else _sum_spans(logarithms[None], spans)[0]
    return {
        "earlierRelevance": [row[:number] for number, row in enumerate(earlier)],
        "probabilities": probabilities and [float(f"{exp(value):.4g}") for value in probabilities],
    }


def _sum_spans(relevance: Tensor, spans: Sequence[slice]) -> list[list[float]]:
    """Return the sums of relevance (W, tokens) over spans of tokens, in three significant digits."""
    return _round_maps(torch.stack([relevance[:, span].sum(1) for span in spans], 1), 3)


def _word_maps(words: AnswerAttribution, number: int, image: Pixels) -> dict[str, Any]:
    """Return a picture as the page takes it: its file, its size in pixels, and each word's maps of its patches."""
    relevance, focus = words.picture_relevance(number), words.focus(number)
    if relevance.dim() > 3:
        raise ValueError("attribution must be of pictures or a sound, but got a video. Pass it to visualize_video.")
    photo = shrink(photo_of(image))
    size = {"width": photo.width, "height": photo.height, "rows": relevance.shape[1], "columns": relevance.shape[2]}
    return {"source": image_data(photo), **size, "relevance": _round_maps(relevance, 4), "focus": _round_maps(focus, 3)}


def _round_maps(maps: Tensor, digits: int) -> list[list[float]]:
    return [round_values(word, digits) for word in maps.double().cpu().numpy()]


def _sound_picture(words: AnswerAttribution) -> dict[str, Any]:
    """Return the sound as the page takes a picture, with each word's maps of its tokens and its times."""
    sound, (tokens, *_) = words.sound, words.pictures or ()
    assert sound is not None
    assert isinstance(tokens, PictureTokens)
    assert tokens.seconds is not None
    relevance, focus = words.picture_relevance()[:, 0], words.focus()[:, 0]
    columns = min(relevance.shape[1], max(1, round(len(sound.samples) / sound.sampling_rate / tokens.seconds)))
    picture = ImageOps.invert(grey_picture(spectrogram(sound)).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC))
    size = {"width": WIDTH, "height": HEIGHT, "rows": 1, "columns": columns}
    return {
        **{"source": image_data(picture), **size, "seconds": tokens.seconds, "audio": wave_data(sound)},
        "relevance": _round_maps(relevance[:, :columns], 4),
        "focus": _round_maps(focus[:, :columns], 3),
        "times": _round_maps(words.times(), 4),
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
