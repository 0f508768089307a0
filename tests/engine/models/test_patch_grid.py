"""Patch grids and prefix tokens of models."""

from functools import partial

import pytest
import torch
import transformers as tf
from families import make, naming, tokens_after_the_last_layer, with_text
from field_families import FIELD_FAMILIES
from torch import nn
from torch.testing import assert_close

from captum_gmar import AttentionEvidence
from captum_gmar.engine.models.patch_grid import Logits, PatchGrid, patch_grid

SIZES = {"vocab_size": 20, "hidden_size": 32, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
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
    grid = PatchGrid(rows=1, columns=2, patch_height=2, patch_width=1, prefixes=frozenset({1}))
    pixels = grid.spread(torch.tensor([[[6.0, 2.0]]]), height=3, width=2)
    assert_close(pixels, torch.tensor([[[3.0, 1.0], [3.0, 1.0], [0.0, 0.0]]]))
    inputs = torch.zeros(1, 2, 3, 2, dtype=torch.float64)
    attributions = grid.spread_like(torch.tensor([[[6.0, 2.0]]]), inputs)
    channel = [[1.5, 0.5], [1.5, 0.5], [0.0, 0.0]]
    assert_close(attributions, torch.tensor([[channel, channel]], dtype=torch.float64))
    assert attributions.is_contiguous()


@pytest.mark.parametrize(("patch_size", "expected"), [(8, (8, 8)), ((8, 4), (8, 4)), ([8, 4], (8, 4))])
def test_patch_size_of_a_config(vit, patch_size, expected):
    vit.config.patch_size = patch_size
    assert patch_grid(vit, 32, 32)[2:4] == expected


def test_patch_size_of_a_part():
    """CLIP's vision config has a patch size; its own config has none."""
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


@pytest.mark.fault
def test_perceiver_takes_images_though_its_config_counts_frames():
    evidence = AttentionEvidence(FIELD_FAMILIES["Perceiver"].make().eval())
    assert evidence.relevance(torch.randn(1, 3, 8, 8), 0).shape == (1, 8, 8)


WORD_MODELS = {
    "AnswerEvidence": lambda: tf.LlamaForCausalLM(tf.LlamaConfig(**SIZES, num_key_value_heads=2)),
    "DocumentEvidence": lambda: tf.LayoutLMv3ForSequenceClassification(
        tf.LayoutLMv3Config(**SIZES, input_size=32, coordinate_size=6, shape_size=4)
    ),
}


@pytest.mark.parametrize("name", WORD_MODELS)
def test_models_of_words_name_the_class_that_explains_them(name):
    model = WORD_MODELS[name]().eval()
    with pytest.raises(ValueError, match=rf"must be a classifier of images, but got L.*Explain it by .*{name}"):
        AttentionEvidence(model)
    AttentionEvidence(model, forward_func=lambda images: images)
