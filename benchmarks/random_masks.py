"""Agreement of maps with random masks, and their sensitivity to the class.

    python -m benchmarks.random_masks [--methods NAME ...] [--first-seed 740000] [--limit N] [--removal noise,...]
    python -m benchmarks.random_masks DATA --model MODEL [--part K/N] [--sure P] [--limit N] ...

LDS is the rank correlation, over 64 random halves of the patches that no method saw, of the relevance that they keep
with the target's log-odds. As all keep as many patches, a uniform map has none. Class sensitivity, of built-in scenes
alone, is the share of scenes of two objects in which the map of each class has more of its positive part on its own
object than on the other. In brackets is what a method is ahead of the first by, with its 95 % interval (bootstrap over
images).
"""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.rivals import rivals, subject_of
from captum_gmar.attr.patch_relevance import Method, relevance_of
from captum_gmar.attr.scores import log_odds
from captum_gmar.classifier import Classifier
from captum_gmar.cli.options import names_of, part
from captum_gmar.demo import load_scene
from captum_gmar.evaluation.catalogue import REMOVALS, make_removal
from captum_gmar.evaluation.data.example import Example
from captum_gmar.evaluation.data.subject import Subject, sample_numbers
from captum_gmar.files.markdown import table
from captum_gmar.metrics import Removal

SETS, SEED = 64, 99
BUDGETED = ("token-evidence", "token-evidence@3", "token-evidence@9", "token-evidence@17")


def removed_sets(grid: tuple[int, int]) -> Tensor:
    """Return random halves of the patches (1, 64, rows, columns)."""
    drawn = torch.rand(SETS, grid[0] * grid[1], generator=torch.Generator().manual_seed(SEED))
    return (drawn.argsort(1).argsort(1) < drawn.shape[1] // 2).view(1, SETS, *grid)


def rank_correlation(first: Tensor, second: Tensor) -> float:
    """Return Spearman's correlation of two rows of numbers without ties."""
    ranks = torch.stack([values.argsort().argsort().double() for values in (first, second)])
    return float(torch.corrcoef(ranks)[0, 1])


def agreements(
    maps: Sequence[Tensor], forward: Callable[[Tensor], Tensor], pixels: Tensor, target: int, removal: Removal
) -> list[float]:
    """Return the LDS of each map (rows, columns) of one image."""
    removed = removed_sets((maps[0].shape[0], maps[0].shape[1]))
    with torch.no_grad():
        values = log_odds(removal(forward, pixels, removed).double())[:, target]
    return [rank_correlation((~removed[0] * relevance).sum((1, 2)), values) for relevance in maps]


def tells_classes(method: Method, classifier: Classifier, seed: int) -> bool:
    """Return whether each class's map of a scene of two objects has more on its own object than on the other."""
    scene = load_scene(seed, objects=2)
    maps = [_explain(method, classifier, scene.pixel_values, label) for label in scene.labels]
    masks = [torch.as_tensor(mask)[None, None].float() for mask in scene.masks]
    on = [[float((m.clamp(min=0) * F.adaptive_avg_pool2d(mask, m.shape)).sum()) for mask in masks] for m in maps]
    return on[0][0] > on[0][1] and on[1][1] > on[1][0]


def _explain(method: Method, classifier: Classifier, pixels: Tensor, target: int) -> Tensor:
    return relevance_of(method, classifier.model, pixels, torch.tensor([target]), batch_size=16)[0]


def lead_of(values: Tensor) -> str:
    """Return the mean of differences (N,) with its 95 % interval by bootstrap."""
    drawn = torch.randint(len(values), (2000, len(values)), generator=torch.Generator().manual_seed(0))
    low, high = values[drawn].mean(1).quantile(torch.tensor([0.025, 0.975], dtype=values.dtype))
    return f"{values.mean():+.3f} [{low:+.3f}, {high:+.3f}]"


def measure(
    subject: Subject, examples: Sequence[Example], methods: Sequence[str], removals: Sequence[str], target: str
) -> list[list[str]]:
    """Return the LDS of each method under each removal."""
    classifier = subject.classifier
    made = [rivals(with_many_passes=True)[name](classifier.model) for name in methods]
    removes: list[Any] = [make_removal(name, classifier.model) for name in removals]
    rows, target_of = [], subject.targets(target)
    for example in examples:
        pixels, label = classifier.pixel_values(example.read()), target_of(example)
        if label is None:
            with torch.no_grad():
                label = int(classifier.logits(pixels).argmax())
        maps = [_explain(method, classifier, pixels, label) for method in made]
        rows.append([agreements(maps, classifier.logits, pixels, label, remove) for remove in removes])
    found = torch.tensor(rows, dtype=torch.float64)  # (N, removals, methods)
    leads = found - found[..., :1]
    return [
        [
            f"{mean:.3f}" + (f" ({lead_of(lead)})" if number else "")
            for mean, lead in zip(means, lead_columns, strict=True)
        ]
        for number, (means, lead_columns) in enumerate(zip(found.mean(0).T, leads.permute(2, 1, 0), strict=True))
    ]


def main(given: list[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        "python -m benchmarks.random_masks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", nargs="?", type=Path)
    parser.add_argument("--model")
    parser.add_argument("--methods", nargs="+", choices=list(rivals(True)), default=BUDGETED, metavar="NAME")
    parser.add_argument("--first-seed", type=int, default=740_000)
    parser.add_argument("--limit", type=int, default=24)
    parser.add_argument("--part", type=part, default=(1, 1), metavar="K/N")
    parser.add_argument("--sure", type=float, metavar="P")
    parser.add_argument("--removal", type=names_of(tuple(REMOVALS)), default=("noise",), metavar="NAME,...")
    parser.set_defaults(objects=None)
    arguments = parser.parse_args(given)
    with subject_of(arguments) as subject:
        which = (1, 1) if arguments.sure is not None else arguments.part
        order = sample_numbers(len(subject.examples), arguments.limit, 0, which)
        examples = [subject.examples[number] for number in order]
        target = "predicted" if arguments.data else "label"
        found = measure(subject, examples, arguments.methods, arguments.removal, target)
        head = ["method", *(f"LDS, {name}" for name in arguments.removal)]
        if not arguments.data:
            seeds = range(arguments.first_seed, arguments.first_seed + arguments.limit)
            head.append("class sensitivity")
            for name, row in zip(arguments.methods, found, strict=True):
                method = rivals(with_many_passes=True)[name](subject.classifier.model)
                row.append(f"{sum(tells_classes(method, subject.classifier, seed) for seed in seeds)} of {len(seeds)}")
    print(table(head, [[name, *row] for name, row in zip(arguments.methods, found, strict=True)]))


if __name__ == "__main__":
    main()
