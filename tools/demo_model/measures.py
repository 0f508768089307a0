"""What is measured of the demo model: how often it is right, where it looks, and how its heads differ."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from captum_gmar.demo.patches import patch_shares, scene_pixel_values
from captum_gmar.demo.scenes import Scene, make_scene
from tools.demo_model.localisation import SceneMean, scene_mean

if TYPE_CHECKING:
    from transformers import ViTForImageClassification

_BATCH = 50


def _in_batches(objects: int, seeds: Iterable[int]) -> Iterator[list[Scene]]:
    chosen = list(seeds)
    for start in range(0, len(chosen), _BATCH):
        yield [make_scene(seed, objects) for seed in chosen[start : start + _BATCH]]


@torch.no_grad()
def accuracy(model: ViTForImageClassification, objects: int, seeds: Iterable[int]) -> SceneMean:
    """Return how often the classes of a scene's k objects are exactly the k top-ranked ones."""
    hits: list[float] = []
    for scenes in _in_batches(objects, seeds):
        ranked = model(scene_pixel_values(scenes)).logits.topk(objects).indices.tolist()
        hits += [float(set(top) == set(scene.labels)) for top, scene in zip(ranked, scenes, strict=True)]
    return scene_mean(hits)


@torch.no_grad()
def confidence(model: ViTForImageClassification, seeds: Iterable[int]) -> SceneMean:
    """Return the softmax probability of the right class on one-object scenes."""
    right: list[float] = []
    for scenes in _in_batches(1, seeds):
        probabilities = model(scene_pixel_values(scenes)).logits.softmax(dim=-1)
        right += [float(row[scene.labels[0]]) for row, scene in zip(probabilities, scenes, strict=True)]
    return scene_mean(right)


@torch.no_grad()
def attention_lift(eager_model: ViTForImageClassification, seeds: Iterable[int]) -> Tensor:
    """Return how much of the CLS token's attention to patches is on the object, relative to its area.

    Args:
        eager_model: a model of its own with eager attention; it is left with transformers' recording hooks.
        seeds: seeds of one-object scenes.

    Returns:
        Tensor: The **lift** of each scene, layer and head, (N, L, H). 1 is chance.
    """
    lifts = []
    for scenes in _in_batches(1, seeds):
        attentions = eager_model(scene_pixel_values(scenes), output_attentions=True).attentions
        to_patches = torch.stack([layer[:, :, 0, 1:] for layer in attentions], dim=1)  # (N, L, H, P)
        shares = torch.stack([patch_shares(scene.masks[0]) for scene in scenes])  # (N, P)
        on_object = torch.einsum("nlhp,np->nlh", to_patches, shares) / to_patches.sum(dim=-1)
        lifts.append(on_object / shares.mean(dim=1)[:, None, None])
    return torch.cat(lifts)


def head_importance(model: ViTForImageClassification, seeds: Iterable[int]) -> Tensor:
    """Return GMAR's head importance for the right class of one-object scenes, (N, L, H)."""
    from captum_gmar import GMARAttribution

    gmar = GMARAttribution(model)
    importances = [
        gmar.head_importance(scene_pixel_values(scenes), target=[scene.labels[0] for scene in scenes])
        for scenes in _in_batches(1, seeds)
    ]
    return torch.cat(importances)
