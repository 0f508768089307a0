"""Search for layers in models of every family."""

import pytest
import torch
from families import FAMILIES, IMAGE, Block, TimmLike, make, with_text
from torch import nn

from captum_gmar.engine.models.layers import has_several_grids, transformer_layers


@pytest.mark.parametrize("family", FAMILIES)
def test_layers_run_in_order(family):
    model, forward = make(family)
    calls, layers = [], transformer_layers(model)
    for layer in layers:
        layer.register_forward_hook(lambda layer, *_: calls.append(layer))
    forward(torch.randn(1, 3, *IMAGE))
    assert calls == layers


def test_layers_of_the_vision_tower():
    clip = with_text("CLIPModel")
    assert transformer_layers(clip) == list(clip.vision_model.encoder.layers)


def test_the_longest_list_counts():
    model = TimmLike("avg", {})
    model.further = nn.ModuleList([Block(), Block()])
    assert transformer_layers(model) == list(model.blocks)


def test_layers_of_torch():
    layer = nn.TransformerEncoderLayer(24, 3, batch_first=True)
    model = nn.Sequential(nn.Conv2d(3, 24, 8, 8), nn.TransformerEncoder(layer, 2, enable_nested_tensor=False))
    assert transformer_layers(model) == list(model[1].layers)


def test_a_single_layer_in_nested_lists():
    model = TimmLike("avg", {})
    stage = nn.ModuleDict({"blocks": nn.Sequential(Block()), "norm": nn.LayerNorm(24)})
    model.blocks = nn.Sequential(stage)
    assert transformer_layers(nn.Sequential(model)) == list(stage["blocks"])


def test_lists_of_other_modules_are_no_layers():
    model = TimmLike("avg", {})
    model.adapters = nn.ModuleList(nn.Linear(24, 24) for _ in range(3))
    model.mixed = nn.ModuleList([Block(), Block(), nn.MultiheadAttention(24, 3)])
    assert transformer_layers(model) == list(model.blocks)


def test_no_layers():
    with pytest.raises(ValueError, match=r"Linear must have .* of layers of one class, .* but has none"):
        transformer_layers(nn.Linear(2, 2))


def test_two_towers_that_see_images():
    model = nn.ModuleDict({"teacher": TimmLike("avg", {}), "student": TimmLike("avg", {})})
    with pytest.raises(ValueError, match=r"but has teacher\.blocks, student\.blocks"):
        transformer_layers(model)


def test_a_model_in_a_list_of_its_own_has_one_grid():
    assert not has_several_grids(nn.Sequential(TimmLike("avg", {})), torch.zeros(1, 3, *IMAGE))
