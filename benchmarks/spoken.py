"""Sentences spoken by espeak-ng, with the time of each word."""

import ctypes
import ctypes.util
import random
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from captum_gmar.files.sounds import resample_sound

RATE = 16_000
PAUSE = 0.4  # seconds between words spoken one by one
VOICES = ("en-us", "en-gb+f3")
QUIET = 0.01  # of the loudest sample: silence before and after a word

ADJECTIVES = "black old small green quiet heavy yellow young broken clean wooden golden empty rich"
NOUNS = "cat table farmer river window doctor garden horse train letter teacher bridge kitchen soldier"
VERBS = "sat stood slept waited walked played worked stayed jumped danced"
PREPOSITIONS = "behind under near beside before after"

_SYNCHRONOUS, _UTF8, _WORD = 2, 1, 1  # constants of espeak's interface: synchronous output, text, events


class Speech(NamedTuple):
    """A spoken sentence.

    Attributes:
        words: the words, without the full stop.
        samples: (samples,) at 16 kHz.
        times: (W, 2) first and last second of each word.
    """

    words: tuple[str, ...]
    samples: npt.NDArray[np.float64]
    times: npt.NDArray[np.float64]

    @property
    def text(self) -> str:
        """Return the sentence as a transcript has it."""
        return f"{' '.join(self.words)}."


class _Event(ctypes.Structure):
    _fields_ = [
        *(("type", ctypes.c_int), ("identifier", ctypes.c_uint), ("position", ctypes.c_int)),
        *(("length", ctypes.c_int), ("milliseconds", ctypes.c_int), ("sample", ctypes.c_int)),
        *(("user_data", ctypes.c_void_p), ("name", ctypes.c_char * 8)),
    ]


_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))


class Speaker:
    """Synthesiser of espeak-ng, of which a process has one.

    Raises:
        OSError: if espeak-ng is not installed.
    """

    def __init__(self) -> None:
        name = ctypes.util.find_library("espeak-ng")
        if name is None:
            raise OSError("espeak-ng is not installed. Install Debian's espeak-ng.")
        self._library = ctypes.CDLL(name)
        self._rate = self._library.espeak_Initialize(_SYNCHRONOUS, 0, None, 0)
        self._parts: list[npt.NDArray[np.int16]] = []
        self._starts: dict[int, float] = {}  # by the word's place in the text
        self._callback = _Callback(self._receive)
        self._library.espeak_SetSynthCallback(self._callback)

    def _receive(self, samples: Any, count: int, events: Any) -> int:
        if count:
            self._parts.append(np.ctypeslib.as_array(samples, (count,)).copy())
        number = 0
        while events[number].type:
            if events[number].type == _WORD and events[number].position:  # an end has position 0
                self._starts.setdefault(events[number].position, events[number].milliseconds / 1000)
            number += 1
        return 0

    def speak(self, text: str, voice: str) -> tuple[npt.NDArray[np.float64], list[float]]:
        """Return samples at 16 kHz, and the second in which each word begins."""
        self._parts, self._starts = [], {}
        self._library.espeak_SetVoiceByName(voice.encode())
        content = text.encode()
        self._library.espeak_Synth(content, len(content) + 1, 0, 1, 0, _UTF8, None, None)
        self._library.espeak_Synchronize()
        samples = np.concatenate(self._parts) / 2**15
        return resample_sound(samples, self._rate, RATE), [self._starts[place] for place in sorted(self._starts)]

    def running(self, words: Sequence[str], voice: str) -> Speech:
        """Speak a sentence; a word ends where the next one begins, and the last with its sound."""
        samples, starts = self.speak(" ".join(words) + ".", voice)
        end = _loud(samples)[1] / RATE
        if len(starts) != len(words):
            raise ValueError(f"espeak-ng must tell the time of each of {len(words)} words, but got {len(starts)}.")
        return Speech(tuple(words), samples, np.stack([starts, [*starts[1:], end]], 1))

    def paced(self, words: Sequence[str], voice: str) -> Speech:
        """Speak words one by one with pauses between them."""
        parts, times, place = [np.zeros(int(PAUSE * RATE))], [], PAUSE
        for word in words:
            samples, _ = self.speak(word, voice)
            samples = samples[slice(*_loud(samples))]
            times.append((place, place + len(samples) / RATE))
            parts += [samples, np.zeros(int(PAUSE * RATE))]
            place = sum(map(len, parts)) / RATE
        return Speech(tuple(words), np.concatenate(parts), np.array(times))


def _loud(samples: npt.NDArray[np.float64]) -> tuple[int, int]:
    """Return the first sample that is not silent, and the one after the last."""
    loud = np.flatnonzero(np.abs(samples) > QUIET * np.abs(samples).max())
    return int(loud[0]), int(loud[-1]) + 1


def add_noise(speech: Speech, decibels: float, seed: int) -> Speech:
    """Add white noise at this ratio of the words' power to the noise's."""
    first, last = (speech.times * RATE).astype(int).T
    power = np.concatenate([speech.samples[a:b] for a, b in zip(first, last, strict=True)]).var()
    noise = np.random.default_rng(seed).normal(size=len(speech.samples))
    return speech._replace(samples=speech.samples + noise * (power / 10 ** (decibels / 10)) ** 0.5)


def make_sentence(seed: int) -> tuple[str, ...]:
    """Return the words of a sentence, the same for the same seed."""
    random_choice = random.Random(seed).choice

    def draw(words: str) -> str:
        return random_choice(words.split())

    parts = (
        "The",
        draw(ADJECTIVES),
        draw(NOUNS),
        draw(VERBS),
        draw(PREPOSITIONS),
        "the",
    )
    return (*parts, draw(ADJECTIVES), draw(NOUNS))
