"""Agreement of maps with random masks, and their sensitivity to the class, of methods on built-in scenes.

    python -m benchmarks.random_masks [--methods NAME ...] [--first-seed 740000] [--limit N] [--removal noise]

LDS is the rank correlation, over 64 random sets of patches that no method saw, of the relevance that they keep with
the target's log-odds. Class sensitivity is the share of scenes of two objects in which the map of each class has more
of its positive part on its own object than on the other. In brackets is what a method is ahead of the first by, with
its 95 % interval (bootstrap over scenes).
"""

import argparse
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.rivals import rivals
from captum_gmar.attr.patch_relevance import Method, relevance_of
from captum_gmar.attr.scores import log_odds
from captum_gmar.classifier import Classifier, load_classifier
from captum_gmar.cli.options import names_of
from captum_gmar.cli.sources import scene_example
from captum_gmar.demo import load_scene, model_folder
from captum_gmar.evaluation.catalogue import REMOVALS, make_removal
from captum_gmar.files.markdown import table
from captum_gmar.metrics import Removal

SETS, SEED = 64, 99
BUDGETED = ("token-evidence", "token-evidence@3", "token-evidence@9", "token-evidence@17")


def removed_sets(grid: tuple[int, int]) -> Tensor:
    """Return random sets of patches (1, 64, rows, columns), a tenth of all patches in the first to nine in the last."""
    drawn = torch.rand(1, SETS, *grid, generator=torch.Generator().manual_seed(SEED))
    return drawn < torch.linspace(0.1, 0.9, SETS)[:, None, None]


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


def measure(classifier: Classifier, methods: Sequence[str], seeds: Sequence[int], removal: str) -> str:
    """Return a table of both quantities."""
    made = {name: rivals(with_many_passes=True)[name](classifier.model) for name in methods}
    remove: Any = make_removal(removal, classifier.model)
    rows = []
    for seed in seeds:
        example = scene_example(seed, 1 + seed % 2)
        pixels, label = classifier.pixel_values(example.read()), int(example.label)  # type: ignore[arg-type]
        maps = [_explain(method, classifier, pixels, label) for method in made.values()]
        rows.append(agreements(maps, classifier.logits, pixels, label, remove))
    found = torch.tensor(rows, dtype=torch.float64)
    lines = []
    for number, (name, method) in enumerate(made.items()):
        told = sum(tells_classes(method, classifier, seed) for seed in seeds)
        lead = f" ({lead_of(found[:, number] - found[:, 0])})" if number else ""
        lines.append([name, f"{found[:, number].mean():.3f}{lead}", f"{told} of {len(seeds)}"])
    return table(["method", f"LDS, {removal}", "class sensitivity"], lines)


def main(given: list[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        "python -m benchmarks.random_masks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--methods", nargs="+", choices=list(rivals(True)), default=BUDGETED, metavar="NAME")
    parser.add_argument("--first-seed", type=int, default=740_000)
    parser.add_argument("--limit", type=int, default=24)
    parser.add_argument("--removal", type=names_of(tuple(REMOVALS)), default=("noise",), metavar="NAME")
    arguments = parser.parse_args(given)
    with model_folder() as folder:
        classifier = load_classifier(folder, device=torch.device("cpu"))
        seeds = range(arguments.first_seed, arguments.first_seed + arguments.limit)
        for removal in arguments.removal:
            print(measure(classifier, arguments.methods, seeds, removal))


if __name__ == "__main__":
    main()
