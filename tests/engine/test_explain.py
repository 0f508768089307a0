"""The choice of the pass that explains a model."""

import copy

import pytest
import torch
from field_families import FIELD_FAMILIES, swin
from torch.testing import assert_close

from captum_gmar import AttentionEvidence, AttentionRollout, GMARAttribution, RawAttention, TokenEvidence
from captum_gmar.engine.explain import Pass, choose_pass
from captum_gmar.engine.models.introspection import ModelInfo


@pytest.mark.fault
@pytest.mark.parametrize("make", [AttentionEvidence, GMARAttribution])
def test_two_models_of_windows(make):
    torch.manual_seed(0)
    (first, second), inputs = (swin("Swin").eval() for _ in range(2)), torch.randn(2, 3, 60, 60)
    expected = make(first).relevance(inputs, 1)
    for _ in range(2):  # also after a call that found how the model's layers run
        method = make(first, forward_func=lambda pixels: first(pixels).logits + second(pixels).logits)
        with pytest.raises(RuntimeError, match="forward_func must run one model"):
            method.relevance(inputs, 1)
    assert_close(make(first).relevance(inputs, 1), expected, rtol=0, atol=0)


@pytest.mark.fault
@pytest.mark.parametrize("make", [AttentionRollout, RawAttention])
def test_attention_of_windows_that_the_output_does_not_read(make):
    torch.manual_seed(0)
    (first, second), inputs = (swin("Swin").eval() for _ in range(2)), torch.randn(2, 3, 60, 60)
    method = make(first, forward_func=lambda pixels: first(pixels).logits + second(pixels).logits.detach())
    with pytest.raises(RuntimeError, match="the output does not depend on the attention of layer"):
        method.relevance(inputs)
    kept = make(first, forward_func=lambda pixels: first(pixels).logits * 2)
    assert_close(kept.relevance(inputs), make(first).relevance(inputs), rtol=0, atol=0)


def test_a_function_changes_nothing_for_the_next_call():
    """Raise the error of a function that takes no more examples than it was given; explain its model as before."""
    torch.manual_seed(0)
    model, inputs, factors = swin("Swin").eval(), torch.randn(2, 3, 60, 60), torch.tensor([[1.0], [2.0]])
    with pytest.raises(RuntimeError, match="must match the size of tensor"):
        AttentionEvidence(model, forward_func=lambda pixels: model(pixels).logits * factors).relevance(inputs, 1)
    found = AttentionEvidence(model).relevance(inputs, 1)
    assert_close(found, AttentionEvidence(copy.deepcopy(model)).relevance(inputs, 1), rtol=0, atol=0)


@pytest.mark.fault
@pytest.mark.parametrize("make", [GMARAttribution, AttentionEvidence, TokenEvidence])
@pytest.mark.parametrize("error", [RuntimeError, ValueError, IndexError, KeyError])
@pytest.mark.parametrize("name", ["ViT", "Swin"])
def test_a_function_that_raises_runs_once(make, error, name, vit, images):
    """Raise the function's error, whichever it is, after one call: no other pass is tried."""
    model, inputs = (vit, images) if name == "ViT" else (swin("Swin").eval(), torch.randn(2, 3, 60, 60))
    calls = []

    def forward(pixels):
        calls.append(pixels)
        model(pixels)
        raise error("of the function")

    with pytest.raises(error, match="of the function"):
        make(model, forward_func=forward).relevance(inputs, 3)
    assert len(calls) == 1


@pytest.mark.parametrize(
    ("name", "rollout", "evidence"),
    [
        ("ViT", Pass.ATTENTION, Pass.ATTENTION),
        ("Swin", Pass.WINDOWS, Pass.VALUES),
        ("MobileViT", Pass.WINDOWS, Pass.VALUES),
        ("PVT", Pass.ATTENTION, Pass.VALUES),  # with a class token, so that the first pass says why it cannot be
    ],
)
def test_the_pass_that_fits_a_model(name, rollout, evidence, vit):
    model = vit if name == "ViT" else FIELD_FAMILIES[name].make()
    info, images = ModelInfo(model), torch.zeros(1, 3, 64, 64)
    assert choose_pass(GMARAttribution.passes, info, images) is rollout
    assert choose_pass(AttentionEvidence.passes, info, images) is evidence
    assert choose_pass(TokenEvidence.passes, info, images) is Pass.HIDDEN_STATES
