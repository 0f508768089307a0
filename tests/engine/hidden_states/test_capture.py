"""Captured hidden states and attention against those that the model itself returns."""

import pytest
import torch
from installed import HAS_TRANSFORMERS_5
from torch.testing import assert_close

from captum_gmar.engine.hidden_states.capture import capture_layers
from captum_gmar.engine.models.introspection import ModelInfo
from captum_gmar.engine.models.patch_grid import Logits


@pytest.fixture
def vit(make_vit):
    return make_vit(attn_implementation="eager")


@pytest.fixture
def layers(vit, images):
    return capture_layers(ModelInfo(vit), Logits(vit), images, (), False)


def test_hidden_states_and_logits_are_the_model_s(vit, images, layers):
    output = vit(images, output_hidden_states=True)
    assert_close(layers.logits, output.logits)
    *entering, leaving = layers.tokens
    for found, expected in zip(entering, output.hidden_states, strict=False):
        assert_close(found, expected)
    assert_close(leaving if HAS_TRANSFORMERS_5 else vit.vit.layernorm(leaving), output.hidden_states[-1])
    assert layers.prefix_tokens == 1
    first = next(module for name, module in vit.named_modules() if name.endswith("2.layernorm_before"))
    assert_close(layers.attention_input, first(output.hidden_states[2]))


def test_received_attention_and_the_first_query_s_part(vit, images, layers):
    attentions = vit(images, output_attentions=True).attentions
    for layer, attention in zip(layers.attention, attentions, strict=True):  # (N, H, T, T)
        assert_close(layer.received_attention, attention.mean((1, 2)), rtol=1e-5, atol=1e-6)
        gradient = torch.randn(layer.output.shape, generator=torch.Generator().manual_seed(0))
        expected = torch.einsum("nhj,nhjd,nhd->nj", attention[:, :, 0], layer.value, gradient[:, :, 0])
        assert_close(layer.first_query_evidence(1, gradient), expected, rtol=1e-4, atol=1e-5)
        assert not layer.first_query_evidence(0, gradient).any()


def test_gradients_are_those_of_the_logits(vit, images, layers):
    hidden = layers.tokens[1]
    (found,) = layers.gradients(layers.logits[:, 3], [hidden], False)
    output = vit(images, output_hidden_states=True)
    (expected,) = torch.autograd.grad(output.logits[:, 3].sum(), output.hidden_states[1])
    assert_close(found, expected)
    assert_close(layers.sum_channels(hidden, found), (hidden * found).sum(-1).detach())
    assert layers.has_gradient(found)
    assert not layers.has_gradient(found * torch.tensor([1.0, 0, 1, 1])[:, None, None])
