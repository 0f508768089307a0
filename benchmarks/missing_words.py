"""Measure which number tells words that a recogniser heard from words that it guessed.

    python -m benchmarks.missing_words --model FOLDER --sentences 22

explains sentences of espeak-ng as they are, with two words cut out, and with the two drowned in noise, each by the true
text. It writes the mean over these words, spoken and missing, of each number, and the area under the ROC curve by which
the number tells them apart, with 95 % intervals (bootstrap over sentences).
"""

import argparse
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import transformers
from torch import Tensor

from benchmarks.missing_objects import estimate
from benchmarks.spoken import RATE, VOICES, Speaker, Speech, make_sentence
from captum_gmar import AnswerEvidence
from captum_gmar.files.markdown import table

MISSING = [2, 5]  # of a sentence's eight words
NOISE = 10.0  # decibels above the word
DAMAGES = {"cut out": None, "drowned": NOISE}
NUMBERS = ("gain", "log-odds", "share of the sound")


def damage(speech: Speech, noise: float | None, seed: int = 0) -> npt.NDArray[np.float64]:
    """Return the samples without the missing words, or with white noise so many decibels louder over them."""
    samples, random = speech.samples.copy(), np.random.default_rng(seed)
    for start, end in speech.times[MISSING]:
        word = slice(round(start * RATE), round(end * RATE))
        if noise is None:
            samples[word] = 0
        else:
            loudness = np.sqrt(np.mean(samples[word] ** 2)) * 10 ** (noise / 20)
            samples[word] += loudness * random.standard_normal(len(samples[word]))
    return samples


def numbers_of(model: Any, processor: Any, samples: npt.NDArray[np.float64], text: str) -> Tensor:
    """Return each number (3, 2) of the words that may be missing, the first two in nats."""
    result = AnswerEvidence(model, processor).attribute(sound=(samples, RATE), target=text, with_gains=True).words()
    assert result.gains is not None
    return torch.stack([result.gains, result.scores, result.shares()["pictures"]])[:, MISSING]


def measure(folder: Path, sentences: int) -> str:
    """Return the table of all numbers."""
    model = transformers.WhisperForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
    processor, speaker = transformers.AutoProcessor.from_pretrained(folder), Speaker()
    pairs: dict[str, list[Tensor]] = defaultdict(list)  # (3, 2, words): each number, spoken and missing
    for seed in range(sentences):
        speech = (speaker.paced, speaker.running)[seed % 2](make_sentence(seed), VOICES[seed // 2 % 2])
        spoken = numbers_of(model, processor, speech.samples, speech.text)
        for name, noise in DAMAGES.items():
            missing = numbers_of(model, processor, damage(speech, noise, seed), speech.text)
            pairs[name].append(torch.stack([spoken, missing], 1))
    rows = [
        (name, number, *estimate([each[place] for each in of]))
        for name, of in pairs.items()
        for place, number in enumerate(NUMBERS)
    ]
    head = "words", "number", "spoken", "missing", "area under the curve"
    return f"{table(head, rows)}\n\n{len(MISSING)} words of each of {sentences} sentences."


def main() -> None:
    parser = argparse.ArgumentParser("python -m benchmarks.missing_words", description="Measure heard and guessed.")
    parser.add_argument("--model", type=Path, metavar="FOLDER", required=True, help="a Whisper")
    parser.add_argument("--sentences", type=int, default=22, metavar="N", help="spoken (default: %(default)s)")
    arguments = parser.parse_args()
    print(measure(arguments.model, arguments.sentences))


if __name__ == "__main__":
    main()
