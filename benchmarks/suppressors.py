"""Scenes with a suppressor: patches that tell nothing of the class, but that a model needs to cancel others.

    python -m benchmarks.suppressors [--scenes 100] [--methods NAME ...]

A scene has a mark whose red is the class, +1/2 or -1/2, plus a level that is drawn anew. The level alone is shown
elsewhere: by a second mark, or by the whole background, as light that also falls on the mark; in XAI-TRIS (Clark et
al. 2023) such a background varies from place to place. Those patches, the suppressor, are independent of the class by
construction. How often the model is right without their level tells how much it uses them. A small model is trained
for each kind. For every method the table has the share of absolute relevance on the mark, the suppressor and the rest,
and the correlation over scenes of the relevance of the suppressor with what its level does to the log-odds.
"""

import argparse
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import ViTConfig, ViTForImageClassification

from benchmarks.rivals import rivals
from captum_gmar.attr.patch_relevance import relevance_of
from captum_gmar.attr.scores import log_odds
from captum_gmar.files.markdown import table

KINDS = ("mark", "background")  # what shows the level
GRID, PATCH, SIDE = 8, 4, 2  # patches of an image and pixels of a patch along an axis, patches of a mark
SIGNAL = 0.5  # red of the class; the level is from -1 to 1
GRAIN = 0.1
COARSE = 3  # random values of a smooth background along an axis, where a mark shows the level
STEPS, BATCH, RATE = 400, 64, 3e-3
TRAINED, MEASURED = 0, 1  # seeds
METHODS = (
    *("token-evidence", "token-evidence@9", "token-evidence@17", "libra-fullgrad+", "attention-evidence", "gmar++"),
    *("gmar-l1", "rollout", "input-x-gradient", "integrated-gradients", "occlusion", "smooth-token-evidence@17"),
    *("kernel-shap@65", "lime@65", "rise@65", "vit-cx@65"),
)


class Scenes(NamedTuple):
    """Scenes, and the same with the level of the suppressor, or the red of the mark, at zero."""

    pixels: Tensor  # (N, 3, pixels, pixels)
    without_suppressor: Tensor
    without_mark: Tensor
    labels: Tensor  # (N,), 0 or 1
    regions: Tensor  # (N, 3, GRID, GRID), the shares of each patch in mark, suppressor and the rest


def draw(kind: str, count: int, generator: torch.Generator) -> Scenes:
    """Draw scenes."""
    labels = torch.randint(2, (count,), generator=generator)
    coarse = 2 * torch.rand(count, 1, COARSE, COARSE, generator=generator) - 1
    field = F.interpolate(coarse, (GRID, GRID), mode="bilinear", align_corners=True).expand(-1, 3, -1, -1)
    level = (2 * torch.rand(count, 1, 1, generator=generator) - 1).expand(-1, GRID, GRID)
    mark, other = _places(count, generator)
    if kind == "background":
        field, other = level[:, None].expand(-1, 3, -1, -1), ~mark
    red = level + SIGNAL * (2 * labels - 1)[:, None, None]
    values = _paint(field, mark, red, 1)
    neutral = _paint(field, mark, torch.zeros_like(red), 1)
    if kind == "mark":
        shown, hidden = _paint(values, other, level, -1), _paint(values, other, torch.zeros_like(level), -1)
        neutral = _paint(neutral, other, level, -1)
    else:
        shown, hidden = values, torch.where(other[:, None], 0, values)
    grain = GRAIN * torch.randn(count, 3, GRID * PATCH, GRID * PATCH, generator=generator)
    images = (F.interpolate(part, scale_factor=PATCH) + grain for part in (shown, hidden, neutral))
    return Scenes(*images, labels, torch.stack([mark, other, ~(mark | other)], 1).double())


def _places(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return the patches (N, GRID, GRID) of two marks, one in the left half and one in the right, in either order."""
    half = GRID // 2
    corners = torch.rand(count, 2, 2, generator=generator) * torch.tensor([GRID - SIDE + 1, half - SIDE + 1])
    first = torch.randint(2, (count,), generator=generator)
    rows, columns = corners.long().unbind(-1)  # (N, 2)
    columns = columns + half * torch.stack([first, 1 - first], 1)
    along = torch.arange(GRID)
    within = [(along >= edge[..., None]) & (along < edge[..., None] + SIDE) for edge in (rows, columns)]
    places = within[0][..., None] & within[1][..., None, :]
    return places[:, 0], places[:, 1]


def _paint(values: Tensor, place: Tensor, red: Tensor, kind: int) -> Tensor:
    """Return values (N, 3, GRID, GRID) with a mark of this red; green and blue tell which mark it is."""
    colour = torch.stack([red, torch.full_like(red, kind), torch.full_like(red, -kind)], 1)
    return torch.where(place[:, None], colour, values)


def train(kind: str) -> ViTForImageClassification:
    """Train a small vision transformer on scenes."""
    generator = torch.Generator().manual_seed(TRAINED)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(TRAINED)
        sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
        model = ViTForImageClassification(ViTConfig(**sizes, image_size=GRID * PATCH, patch_size=PATCH, num_labels=2))
    optimiser = torch.optim.AdamW(model.parameters(), RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, STEPS)
    for _ in range(STEPS):
        scenes = draw(kind, BATCH, generator)
        loss = F.cross_entropy(model(scenes.pixels).logits, scenes.labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    return model.eval().requires_grad_(False)


def measure(kind: str, model: Any, scenes: Scenes, methods: Sequence[str]) -> str:
    """Return how often the model is right, with and without what it uses, and the table of the methods."""
    labels = scenes.labels
    with torch.no_grad():
        intact, bare, blank = (model(pixels).logits for pixels in scenes[:3])
    effect = (log_odds(intact) - log_odds(bare)).gather(1, labels[:, None])[:, 0].double()
    right = [f"{(logits.argmax(1) == labels).double().mean():.3f}" for logits in (intact, bare, blank)]
    rows = [["area", *_shares(scenes.regions.mean(0).sum((1, 2)) / GRID**2), "–"]]
    for name in methods:
        method = rivals(with_many_passes=True)[name](model)
        relevance = relevance_of(method, model, scenes.pixels, labels, batch_size=16).double()
        sizes = (scenes.regions * relevance.abs()[:, None]).sum((2, 3))
        signed = (scenes.regions[:, 1] * relevance).sum((1, 2))
        agreement = torch.corrcoef(torch.stack([signed, effect]))[0, 1]
        rows.append([name, *_shares((sizes / sizes.sum(1, keepdim=True)).mean(0)), f"{agreement:.2f}"])
    head = (
        f"The level is shown by the {kind}. Right: {right[0]}; without the suppressor's level {right[1]}; without the "
    )
    return f"{head}mark's red {right[2]}.\n\n" + table(["method", "mark", "suppressor", "rest", "agreement"], rows)


def _shares(values: Tensor) -> list[str]:
    return [f"{value:.3f}" for value in values.tolist()]


def main(given: list[str] | None = None) -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(
        "python -m benchmarks.suppressors", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scenes", type=int, default=100)
    parser.add_argument("--methods", nargs="+", choices=list(rivals(True)), default=METHODS, metavar="NAME")
    arguments = parser.parse_args(given)
    for kind in KINDS:
        scenes = draw(kind, arguments.scenes, torch.Generator().manual_seed(MEASURED))
        print(measure(kind, train(kind), scenes, arguments.methods), end="\n\n", flush=True)


if __name__ == "__main__":
    main()
