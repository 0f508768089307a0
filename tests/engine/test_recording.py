"""Recorded attention and gradients against the float64 oracle; and nothing stays on the model."""

from unittest import mock

import pytest
import torch
from oracle import attention_and_gradient, float64_softmax
from snapshots import state
from torch import nn
from torch.testing import assert_close

from captum_gmar import record_attention

TARGETS = [3, 0, 9, 3]


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_oracle(make_vit, images, implementation):
    """In float64, so that no processor's rounding decides."""
    model = make_vit(attn_implementation=implementation).double()
    before = state(model)
    with mock.patch("torch.nn.functional.softmax", float64_softmax):  # transformers asks for float32 there
        record = record_attention(model, images.double(), TARGETS)
    attention, gradient = attention_and_gradient(model, images, TARGETS)
    assert_close(list(record.attention), attention)
    assert_close(list(record.gradient), gradient)
    assert not any(tensor.requires_grad for tensor in (*record.attention, *record.gradient))
    assert state(model) == before


def test_rows_sum_to_one(vit, images):
    for attention in record_attention(vit, images, 3).attention:
        assert_close(attention.sum(-1), torch.ones(4, 3, 17))


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_without_gradients(vit, images, context):
    expected = record_attention(vit, images, 3)
    with context():
        record = record_attention(vit, images, 3)
    assert_close(record.gradient, expected.gradient)


def test_after_an_error(make_vit, images):
    model = make_vit(attn_implementation="sdpa")
    before = state(model)
    with pytest.raises(IndexError):
        record_attention(model, images, 10)
    with pytest.raises(ValueError, match="doesn't match model"):
        record_attention(model, images[..., :24], 3)
    assert state(model) == before


def test_captum_rejects_a_missing_target(vit, images):
    with pytest.raises(AssertionError, match="Target not provided when necessary"):
        record_attention(vit, images)


def test_a_model_that_returns_no_attention():
    class Plain(nn.Module):
        def forward(self, inputs, output_attentions):
            return inputs.flatten(1)

    with pytest.raises(TypeError, match="Expected Plain to return attentions when called with output_attentions=True"):
        record_attention(Plain(), torch.zeros(1, 3, 8, 8), 0)
