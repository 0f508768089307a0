"""Recorded attention and gradients against the float64 oracle; and nothing stays on the model."""

import threading
from unittest import mock

import pytest
import torch
from oracle import attention_and_gradient, float64_softmax
from snapshots import state
from torch import nn
from torch.testing import assert_close

from captum_gmar import record_attention
from captum_gmar.engine.models.layers import transformer_layers

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


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_without_gradients(vit, images, context):
    expected = record_attention(vit, images, 3)
    with context():
        record = record_attention(vit, images, 3)
    assert_close(record.gradient, expected.gradient)


def test_after_an_error(make_vit, images):
    model = make_vit(attn_implementation="sdpa")
    before = state(model)
    with pytest.raises(ValueError, match="target must be from 0 to"):
        record_attention(model, images, 10)
    with pytest.raises(ValueError, match="doesn't match model"):
        record_attention(model, images[..., :24], 3)
    assert state(model) == before


def test_another_thread_keeps_what_it_collects(make_vit, images):
    """It begins to collect attention amid the pass that records, and ends after it."""
    model, collected = make_vit(attn_implementation="eager"), []
    expected = make_vit(attn_implementation="eager")(images, output_attentions=True).attentions
    midway, recorded = threading.Event(), threading.Event()
    thread = threading.Thread(target=lambda: collected.extend(model(images, output_attentions=True).attentions))

    def meet(module, args):
        if threading.current_thread() is thread:
            midway.set()
            assert recorded.wait(60)
        elif not midway.is_set():
            thread.start()
            assert midway.wait(60)

    transformer_layers(model)[1].register_forward_pre_hook(meet)
    record_attention(model, images, 3)
    recorded.set()
    thread.join()
    assert_close(collected, list(expected))


def test_a_model_that_returns_no_attention():
    class Plain(nn.Module):
        def forward(self, inputs, output_attentions):
            return inputs.flatten(1)

    with pytest.raises(TypeError, match="model must return attentions with output_attentions=True, but Plain"):
        record_attention(Plain(), torch.zeros(1, 3, 8, 8), 0)
