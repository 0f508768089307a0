"""What is known of a model: patch grid, prefix tokens, where relevance starts."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close
from transformers import CLIPConfig, CLIPForImageClassification, CLIPModel

from captum_gmar.models import PatchGrid, patch_grid, start_relevance

ONE = frozenset({1})


def test_spread_by_hand():
    grid = PatchGrid(rows=1, columns=2, patch_height=2, patch_width=1, prefixes=ONE)
    pixels = grid.spread(torch.tensor([[[6.0, 2.0]]]), height=3, width=2)
    assert_close(pixels, torch.tensor([[[3.0, 1.0], [3.0, 1.0], [0.0, 0.0]]]))


def test_rows_and_columns_are_not_swapped(vit):
    grid = patch_grid(vit, 40, 72)
    assert (grid.rows, grid.columns, grid.patches) == (5, 9, 45)


@pytest.mark.parametrize(("patch_size", "expected"), [(8, (8, 8)), ((8, 4), (8, 4)), ([8, 4], (8, 4))])
def test_patch_size_of_a_config(vit, patch_size, expected):
    vit.config.patch_size = patch_size
    assert patch_grid(vit, 32, 32)[2:4] == expected


def test_patch_size_of_a_part():
    """CLIP's own config names none; its vision tower's does."""
    small = {"hidden_size": 8, "num_attention_heads": 2, "num_hidden_layers": 1, "intermediate_size": 8}
    clip = CLIPModel(CLIPConfig(text_config=small, vision_config={**small, "image_size": 32, "patch_size": 4}))
    grid = patch_grid(clip, 32, 32)
    assert (grid.rows, grid.patch_height, grid.prefixes) == (8, 4, ONE)


def test_patch_size_of_a_convolution():
    model = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 1), nn.Conv2d(3, 8, (4, 2), (4, 2)))
    assert patch_grid(model, 32, 32)[:4] == (8, 16, 4, 2)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ({"cls_token": (1, 1, 8)}, {1}),
        ({"cls_token": (1, 1, 8), "distillation_token": (1, 1, 8)}, {2}),
        ({"cls_token": (1, 1, 8), "register_tokens": (1, 4, 8), "mask_token": (1, 1, 8)}, {5}),
        ({"class_embedding": (8,)}, {1}),
        ({"tokens_of_mine": (1, 1, 8)}, set(range(33))),
    ],
)
def test_prefix_tokens(names, expected):
    model = nn.Sequential(nn.Conv2d(3, 8, 4, 4), nn.Module())
    for name, shape in names.items():
        setattr(model[1], name, nn.Parameter(torch.zeros(shape)))
    grid = patch_grid(model, 8, 8)
    assert grid.prefixes == expected
    assert grid.prefix_tokens(4 + max(expected)) == max(expected)
    assert grid.prefix_tokens(4 + max(expected) + 1) is None


def test_start_at_the_class_token(vit):
    start = start_relevance(vit, patch_grid(vit, 16, 16), tokens=5)
    assert_close(start, torch.tensor([1.0, 0, 0, 0, 0]))


def test_start_at_the_mean_of_the_patches(vit):
    grid = patch_grid(vit, 16, 16)
    assert_close(start_relevance(vit, grid, tokens=4), torch.full((4,), 0.25))
    vit.config.use_mean_pooling = True
    assert_close(start_relevance(vit, grid, tokens=5), torch.tensor([0, 0.25, 0.25, 0.25, 0.25]))


def test_start_of_clip():
    """Its classifier reads the mean of the patches, its image embedding the CLS token."""
    small = {"hidden_size": 8, "num_attention_heads": 2, "num_hidden_layers": 1, "intermediate_size": 8}
    config = CLIPConfig(text_config=small, vision_config={**small, "image_size": 8, "patch_size": 4})
    for model, expected in (
        (CLIPForImageClassification(config), [0, 0.25, 0.25, 0.25, 0.25]),
        (CLIPModel(config), [1, 0, 0, 0, 0]),
    ):
        assert_close(start_relevance(model, patch_grid(model, 8, 8), tokens=5), torch.tensor(expected).float())
