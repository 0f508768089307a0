"""The scores of classes while the patches that maps name are removed, beside patches in random orders."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from captum_gmar.engine.models.patch_grid import PatchGrid
from captum_gmar.metrics.curves import BROUGHT_BACK, MOST_FIRST
from captum_gmar.metrics.removal import PixelRemoval
from captum_gmar.visualization._heatmap import photo_of

DRAWS = 10  # random orders of the patches
_COUNTS = 12  # each about the same multiple of the one before, as the first patches matter most
_AT_ONCE = 16  # images of a forward pass


def patch_counts(patches: int) -> Tensor:
    """Return increasing numbers of patches, from none to all.

    >>> patch_counts(64).tolist()
    [0, 1, 2, 3, 4, 6, 8, 11, 16, 23, 32, 45, 64]
    """
    return torch.tensor([0, *dict.fromkeys(round(patches ** (step / _COUNTS)) for step in range(_COUNTS + 1))])


def random_orders(rows: int, columns: int) -> Tensor:
    """Return the relevance (draws, rows, columns) of random orders, the same ones at each call."""
    return torch.rand(DRAWS, rows, columns, generator=torch.Generator().manual_seed(0))


def removed_sets(relevance: Tensor) -> Tensor:
    """Return masks (M, 2, K, rows, columns) of M maps: of the strongest patches, and of all others, for K counts."""
    counts = patch_counts(relevance[0].numel())
    return torch.stack([course.removed_patches(relevance, counts) for course in (MOST_FIRST, BROUGHT_BACK)], 1)


@torch.no_grad()
def run_without(
    scores_of: Callable[[Tensor], Tensor],
    inputs: Tensor,
    removed: Tensor,
    removal: PixelRemoval,
    show_progress: bool = False,
) -> Tensor:
    """Return the scores (..., C) of an image (1, channels, height, width) without each of the sets of patches.

    Each distinct set of ``removed`` (..., rows, columns) is run once.
    """
    distinct, position = torch.unique(removed.flatten(0, -3), dim=0, return_inverse=True)
    scores = []
    with tqdm(total=len(distinct), disable=not show_progress, desc="removal", unit="image", leave=False) as bar:
        for sets in torch.split(distinct, _AT_ONCE):
            scores.append(removal(scores_of, inputs, sets[None].to(inputs.device)).double().cpu())
            bar.update(len(sets))
    return torch.cat(scores)[position.view(removed.shape[:-2])]


def prove(
    scores_of: Callable[[Tensor], Tensor],
    inputs: Tensor,
    grid: PatchGrid,
    relevance: Sequence[Tensor],
    removal: PixelRemoval,
    show_progress: bool = False,
) -> dict[str, Any]:
    """Return the removal of patches of inputs (1, channels, height, width) as a page takes it.

    ``scores_of`` takes images and returns the scores (N, C) of the C likeliest classes; ``relevance`` holds the maps
    (M, rows, columns) of these classes and others by each method, or one map for all.

    The result has **counts** of patches; of each method and class in **maps** the index into the counts from which each
    patch is removed, **steps**, and the **scores** without these patches and with them only; of each class in
    **random** the least, median and largest score of as many random orders as **draws** says.
    """
    height, width = grid.rows * grid.patch_height, grid.columns * grid.patch_width
    pad = 0, inputs.shape[3] - width, 0, inputs.shape[2] - height  # the margin that no patch covers
    orders = [*relevance, random_orders(*relevance[0].shape[1:])]
    removed = removed_sets(torch.cat(orders))
    scores = run_without(
        lambda images: scores_of(F.pad(images, pad)), inputs[..., :height, :width], removed, removal, show_progress
    )
    steps = removed.shape[2] - removed[:, 0].sum(1).flatten(1)
    sizes = [len(maps) for maps in orders]
    *maps, random = zip(torch.split(steps, sizes), torch.split(scores, sizes), strict=True)
    spread = random[1].quantile(scores.new_tensor([0, 0.5, 1]), 0)  # (3, 2, K, C)
    return {
        "removal": removal.name,
        "draws": DRAWS,
        "counts": patch_counts(steps.shape[1]).tolist(),
        "maps": [[_follow(*each, number) for number in range(scores.shape[-1])] for each in maps],
        "random": _rounded(spread.permute(3, 1, 0, 2)),
    }


def fill_photo(photo: Image.Image, inputs: Tensor, removal: PixelRemoval) -> Image.Image:
    """Return the part of a photo that a model sees with all patches removed, in the model's size."""
    height, width = inputs.shape[2:]
    pixels = torch.from_numpy(np.array(photo.resize((width, height)))).movedim(-1, 0)[None] / 255
    filled = removal.perturb(pixels, torch.ones(1, 1, 1, 1, dtype=torch.bool))
    return photo_of(filled[0, 0].clamp(0, 1))


def _follow(steps: Tensor, scores: Tensor, number: int) -> dict[str, Any]:
    """Return the order of a class by a method, and its scores in this order."""
    order = min(number, len(steps) - 1)
    return {"steps": steps[order].tolist(), "scores": _rounded(scores[order, ..., number])}


def _rounded(values: Tensor) -> Any:
    return np.vectorize(lambda value: float(f"{value:.4g}"))(values).tolist()
