"""Measure which number tells words that a model saw from words that it guessed.

    python -m benchmarks.missing_objects --scenes 100

asks the built-in model about scenes of two objects, and explains the right answers also for the same scenes without
their second object. It writes the mean over the words of this object, with it and without it, of each number, and the
area under the ROC curve by which the number tells them apart, with 95 % intervals (bootstrap over scenes).
"""

import argparse
from collections import defaultdict
from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.known_words import KINDS, Asked, ask, draw_asked
from captum_gmar import AnswerEvidence
from captum_gmar.demo import load_answering_model, load_answering_processor, make_scene
from captum_gmar.files.markdown import table

MISSING = 1  # the object
NUMBERS = ("gain", "log-odds", "evidence in the picture", "share of the picture")
RESAMPLES = 2000


def numbers_of(asked: Asked) -> Tensor:
    """Return each number (4, W) of the words, the first three in nats."""
    inputs = {"input_ids": asked.prompt, "pixel_values": asked.pixel_values}
    result = AnswerEvidence(asked.model).attribute(inputs, asked.answer[:-1], with_gains=True)
    evidence = result.picture_relevance().sum((1, 2)) * result.totals
    assert result.gains is not None
    return torch.stack([result.gains, result.scores, evidence, result.shares()["pictures"]])


def draw_words(scenes: int) -> Iterator[tuple[int, str, Tensor, Tensor]]:
    """Yield seed, kind and numbers (4,) of each word of the second object, with the object and without it."""
    model, processor = load_answering_model(), load_answering_processor()
    for scene, question, asked in draw_asked(model, processor, scenes):
        if any(MISSING in word.objects for word in question.words):
            without = ask(model, processor, make_scene(scene.seed, MISSING), question)
            for word, *pair in zip(question.words, numbers_of(asked).T, numbers_of(without).T, strict=True):
                if MISSING in word.objects:
                    yield scene.seed, word.kind, pair[0], pair[1]


def estimate(pairs: Sequence[Tensor]) -> list[str]:
    """Return mean of seen, mean of guessed words and area under the curve of each scene's numbers (2, words)."""
    wins = torch.stack([torch.stack([_wins(seen[0], guessed[1]) for guessed in pairs]) for seen in pairs])  # (S, S)
    words = torch.tensor([pair.shape[1] for pair in pairs], dtype=torch.float64)
    sums = torch.stack([pair.double().sum(1) for pair in pairs])  # (S, 2)
    drawn = torch.randint(len(pairs), (RESAMPLES, len(pairs)), generator=torch.Generator().manual_seed(0))
    counts = torch.cat([torch.ones(1, len(pairs)), F.one_hot(drawn, len(pairs)).sum(1)]).double()  # (1 + resamples, S)
    total = counts @ words[:, None]
    values = torch.cat([counts @ sums / total, (counts @ wins * counts).sum(1, keepdim=True) / total**2], 1)
    low, high = values[1:].quantile(torch.tensor([0.025, 0.975], dtype=torch.float64), 0)
    return [f"{mean:.2f} [{least:.2f}, {most:.2f}]" for mean, least, most in zip(values[0], low, high, strict=True)]


def _wins(seen: Tensor, guessed: Tensor) -> Tensor:
    """Return in how many pairs the seen word has the larger number; equal ones count half."""
    return ((seen[:, None] - guessed).sign() + 1).double().sum() / 2


def measure(scenes: int) -> str:
    """Return the table of all numbers."""
    found: dict[str, dict[int, list[Tensor]]] = {kind: defaultdict(list) for kind in KINDS}
    for seed, kind, seen, guessed in draw_words(scenes):
        found[kind][seed].append(torch.stack([seen, guessed]))
    rows = []
    for kind, by_scene in found.items():
        values = [torch.stack(words).permute(2, 1, 0) for words in by_scene.values()]  # (4, 2, words) of each scene
        rows += [(kind, name, *estimate([v[number] for v in values])) for number, name in enumerate(NUMBERS)]
    counts = ", ".join(f"{sum(map(len, of.values()))} {kind} in {len(of)} scenes" for kind, of in found.items())
    return f"{table(('words', 'number', 'with it', 'without it', 'area under the curve'), rows)}\n\nWords: {counts}."


def main() -> None:
    parser = argparse.ArgumentParser("python -m benchmarks.missing_objects", description="Measure seen and guessed.")
    parser.add_argument("--scenes", type=int, default=60, metavar="N", help="of two objects (default: %(default)s)")
    print(measure(parser.parse_args().scenes))


if __name__ == "__main__":
    main()
