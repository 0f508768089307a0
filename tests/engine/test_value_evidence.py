"""Value times gradient against attention times its gradient, written out, on every family."""

import pytest
import torch
from field_families import FIELD_FAMILIES
from field_oracle import evidence, field, on_finest
from torch import nn
from torch.testing import assert_close

from captum_gmar import AttentionEvidence
from captum_gmar.attr.evidence import log_odds
from captum_gmar.engine.models import Logits
from captum_gmar.engine.request import Request
from captum_gmar.engine.value_evidence import explain_values


def make(name):
    torch.manual_seed(0)
    family = FIELD_FAMILIES[name]
    model = family.make().eval().double()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    return family, model, torch.randn(2, *family.shape, dtype=torch.float64)


@pytest.mark.parametrize("name", FIELD_FAMILIES)
def test_as_written_out(name):
    family, model, inputs = make(name)
    (found,) = explain_values(model, Logits(model), log_odds, inputs, Request([2], family.arguments or None))
    written = evidence(family, model, inputs, 2)
    fields = [field(tokens, place, 2) for tokens, place in zip(written, family.places(), strict=True)]
    assert_close(found.patch_relevance, on_finest(fields), rtol=1e-7, atol=1e-12)
    assert found.patch_relevance.abs().sum() > 1e-6


def state(model):
    """What a pass must leave as it was."""
    hooks = [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules()]
    configs = [repr(getattr(module, "config", None)) for module in model.modules()]
    return hooks, configs, [(name, tensor.clone(), tensor.grad) for name, tensor in model.named_parameters()]


@pytest.mark.parametrize("name", ["Swin", "PVT", "LeViT"])
def test_shares_in_the_inputs_shape_and_the_model_as_it_was(name):
    _, model, inputs = make(name)
    before, evidence_of = state(model), AttentionEvidence(model)
    attributions = evidence_of.attribute(inputs, target=[1, 2])
    relevance = evidence_of.relevance(inputs, target=[1, 2])
    assert attributions.shape == inputs.shape
    assert_close(attributions.sum((1, 2, 3)), relevance.sum((1, 2)))
    hooks, configs, parameters = state(model)
    assert (hooks, configs) == before[:2]
    for (_, after, gradient), (_, tensor, _) in zip(parameters, before[2], strict=True):
        assert_close(after, tensor, rtol=0, atol=0)
        assert gradient is None


def test_examples_one_by_one_and_several_targets():
    _, model, inputs = make("Swin")
    evidence_of = AttentionEvidence(model)
    alone = [evidence_of.relevance(inputs[[n]], target=3) for n in range(2)]
    assert_close(evidence_of.relevance(inputs, target=3), torch.cat(alone), rtol=1e-9, atol=1e-12)
    assert_close(evidence_of.relevance(inputs, 3, internal_batch_size=1), torch.cat(alone), rtol=1e-9, atol=1e-12)
    each = evidence_of.relevance_of_targets(inputs, [0, 3])
    assert_close(each[:, 1], torch.cat(alone), rtol=1e-9, atol=1e-12)
    assert evidence_of.explain(inputs, lambda logits: logits.topk(2).indices).logits.shape == (2, 5)


def test_what_attention_wrote_is_shared_out():
    """Of each attention: its values times their gradient sum to its output times its gradient, of each example."""
    _, model, inputs = make("SegFormer")
    kept = []
    handles = [
        module.register_forward_pre_hook(lambda module, args: kept.append(args[0]))
        for name, module in model.named_modules()
        if name.endswith("o_proj") or name.endswith("attention.output.dense")
    ]
    logits = model(inputs).logits[:, 2]
    for handle in handles:
        handle.remove()
    assert len(kept) == 5  # one a layer
    (gradient,) = torch.autograd.grad(logits.sum(), kept[-1:])
    (found,) = explain_values(model, Logits(model), lambda logits: logits, inputs, Request([2]), start_layer=-1)
    assert_close(found.relevance.sum(-1), (gradient * kept[-1]).sum((1, 2)))


def test_an_input_of_another_rank():
    _, model, _ = make("Swin")
    with pytest.raises(ValueError, match=r"\(examples, frames, channels, height, width\) of videos"):
        AttentionEvidence(model).relevance(torch.zeros(3, 20), 1)


def test_a_model_without_attention():
    model = nn.Sequential(nn.Conv2d(3, 8, 4, 4), nn.Flatten(), nn.Linear(8 * 4, 5))
    with pytest.raises(RuntimeError, match="No attention was met in Sequential"):
        AttentionEvidence(model).relevance(torch.rand(1, 3, 8, 8), 1)
