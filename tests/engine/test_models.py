"""What is known of a model: patch grid, prefix tokens, which modules are its layers."""

from functools import partial

import pytest
import torch
from families import FAMILIES, IMAGE, Block, TimmLike, make, naming, tokens_after_the_last_layer, with_text
from torch import nn
from torch.testing import assert_close

from captum_gmar.engine.models import Logits, PatchGrid, patch_grid, transformer_layers

ONE = frozenset({1})


@pytest.mark.parametrize("family", FAMILIES)
def test_layers_are_passed_in_order(family):
    model, forward = make(family)
    passed = []
    layers = transformer_layers(model, 3)
    handles = [layer.register_forward_hook(lambda layer, *_: passed.append(layer)) for layer in layers]
    forward(torch.randn(1, 3, *IMAGE))
    assert passed == layers
    for handle in handles:
        handle.remove()


INTERPOLATING = ["ViT", "DeiT with teacher", "BEiT", "Data2Vec", "ViT-MSN", "I-JEPA", "SigLIP"]


@pytest.mark.parametrize("family", [*INTERPOLATING, "DINOv2", "DINOv2 with registers", "DINOv3, own head"])
def test_prefix_tokens_of_images_of_other_sizes(family):
    model, _ = make(family)
    grid = patch_grid(model, 48, 72)
    options = {"interpolate_pos_encoding": True} if family in INTERPOLATING else {}
    images = torch.randn(1, 3, 48, 72)
    tokens, _ = tokens_after_the_last_layer(model, partial(Logits(model), **options), images)
    assert (grid.rows, grid.columns) == (6, 9)
    expected = {"I-JEPA": 0, "SigLIP": 0, "DeiT with teacher": 2, "DINOv2 with registers": 5, "DINOv3, own head": 5}
    assert grid.prefix_tokens(tokens.shape[1]) == expected.get(family, 1)


def test_spread_by_hand():
    grid = PatchGrid(rows=1, columns=2, patch_height=2, patch_width=1, prefixes=ONE)
    pixels = grid.spread(torch.tensor([[[6.0, 2.0]]]), height=3, width=2)
    assert_close(pixels, torch.tensor([[[3.0, 1.0], [3.0, 1.0], [0.0, 0.0]]]))


def test_spread_like_inputs():
    grid = PatchGrid(rows=1, columns=2, patch_height=2, patch_width=1, prefixes=ONE)
    inputs = torch.zeros(1, 2, 3, 2, dtype=torch.float64)
    attributions = grid.spread_like(torch.tensor([[[6.0, 2.0]]]), inputs)
    channel = [[1.5, 0.5], [1.5, 0.5], [0.0, 0.0]]
    assert_close(attributions, torch.tensor([[channel, channel]], dtype=torch.float64))
    assert attributions.is_contiguous()


def test_rows_and_columns_are_not_swapped(vit):
    grid = patch_grid(vit, 40, 72)
    assert (grid.rows, grid.columns, grid.patches) == (5, 9, 45)


@pytest.mark.parametrize(("patch_size", "expected"), [(8, (8, 8)), ((8, 4), (8, 4)), ([8, 4], (8, 4))])
def test_patch_size_of_a_config(vit, patch_size, expected):
    vit.config.patch_size = patch_size
    assert patch_grid(vit, 32, 32)[2:4] == expected


def test_patch_size_of_a_part():
    """CLIP's own config names none; its vision tower's does."""
    grid = patch_grid(with_text("CLIPModel"), 32, 32)
    assert (grid.rows, grid.patch_height, grid.prefixes) == (4, 8, {0, 1})


def test_patch_size_of_a_convolution():
    model = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 1), nn.Conv2d(3, 8, (4, 2), (4, 2)))
    assert patch_grid(model, 32, 32)[:4] == (8, 16, 4, 2)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ({"cls_token": (1, 1, 8)}, {0, 1}),
        ({"cls_token": (1, 1, 8), "distillation_token": (1, 1, 8)}, {0, 2}),
        ({"cls_token": (1, 1, 8), "register_tokens": (1, 4, 8), "mask_token": (1, 1, 8)}, {0, 5}),
        ({"class_embedding": (8,)}, {0, 1}),
        ({"tokens_of_mine": (1, 1, 8)}, set(range(33))),
    ],
)
def test_prefix_tokens(names, expected):
    grid = patch_grid(naming(names), 8, 8)
    assert grid.prefixes == expected
    assert grid.prefix_tokens(4 + max(expected)) == max(expected)
    assert grid.prefix_tokens(4 + max(expected) + 1) is None


@pytest.mark.parametrize("count", [3, None])
def test_layers_of_the_vision_tower(count):
    clip = with_text("CLIPModel")
    assert transformer_layers(clip, count) == list(clip.vision_model.encoder.layers)


def test_the_longest_list_counts_without_a_count():
    model = TimmLike("avg", {})
    model.further = nn.ModuleList([Block(), Block()])
    assert transformer_layers(model) == list(model.blocks)
    assert transformer_layers(model, 2) == list(model.further)


def test_layers_of_torch():
    layer = nn.TransformerEncoderLayer(24, 3, batch_first=True)
    model = nn.Sequential(nn.Conv2d(3, 24, 8, 8), nn.TransformerEncoder(layer, 2, enable_nested_tensor=False))
    assert transformer_layers(model, 2) == list(model[1].layers)


def test_a_single_layer_in_nested_lists():
    model = TimmLike("avg", {})
    stage = nn.ModuleDict({"blocks": nn.Sequential(Block()), "norm": nn.LayerNorm(24)})
    model.blocks = nn.Sequential(stage)
    assert transformer_layers(nn.Sequential(model), 1) == list(stage["blocks"])


def test_lists_of_other_modules_are_no_layers():
    model = TimmLike("avg", {})
    model.adapters = nn.ModuleList(nn.Linear(24, 24) for _ in range(3))
    model.mixed = nn.ModuleList([Block(), Block(), nn.MultiheadAttention(24, 3)])
    assert transformer_layers(model, 3) == list(model.blocks)


@pytest.mark.parametrize("count", [1, 2, 4])
def test_no_so_many_layers(count):
    with pytest.raises(ValueError, match=f"of {count} layers of one class, .* in TimmLike, but found none"):
        transformer_layers(TimmLike("avg", {}), count)


def test_no_layers():
    with pytest.raises(ValueError, match=r"of layers of one class, .* in Linear, but found none"):
        transformer_layers(nn.Linear(2, 2))


def test_two_towers_that_see_images():
    model = nn.ModuleDict({"teacher": TimmLike("avg", {}), "student": TimmLike("avg", {})})
    with pytest.raises(ValueError, match=r"but found teacher\.blocks, student\.blocks"):
        transformer_layers(model, 3)
