"""Methods of tokens and their gradient: what they add up to, what they refuse, and that the model stays as it was."""

import pytest
import torch
from snapshots import state
from torch import nn
from torch.testing import assert_close

import captum_gmar
from captum_gmar import CDAM, AttCAT, FullGradPlus, GradECLIP, LibraAttCAT, LibraFullGradPlus, TokenEvidence
from captum_gmar.engine.hidden_states import registry
from captum_gmar.engine.request import Request

ALL = [TokenEvidence, LibraFullGradPlus, FullGradPlus, LibraAttCAT, AttCAT, CDAM, GradECLIP]
BALANCED = [TokenEvidence, LibraFullGradPlus, LibraAttCAT]
SCORED = [LibraFullGradPlus, FullGradPlus, LibraAttCAT, AttCAT]


def of_all_tokens(method, images, target=3):
    ((explanation,),) = method._explain(images, Request([target]))
    return explanation.relevance


def without_biases(vit):
    for name, parameter in vit.named_parameters():
        if "bias" in name:
            parameter.data.zero_()
    return vit.double()


def test_libra_full_grad_plus_sums_to_the_logit_where_there_are_no_biases(vit, images):
    """Of all tokens, prefix tokens with them; without balance it does not."""
    vit, images = without_biases(vit), images.double()
    logits = vit(images).logits[:, 3]
    assert_close(of_all_tokens(LibraFullGradPlus(vit), images).sum(-1), logits, rtol=1e-9, atol=1e-9)
    plain = of_all_tokens(FullGradPlus(vit), images).sum(-1)
    assert ((plain - logits).abs() > 0.1 * logits.abs()).any()


def test_of_log_odds_it_sums_to_their_slope_times_the_logits(vit, images):
    """Log-odds are no linear function of the logits, so what is shared out is their gradient times these."""
    vit, images = without_biases(vit), images.double()
    logits = vit(images).logits.detach().requires_grad_()
    probability = logits.softmax(-1)[:, 3]
    (slope,) = torch.autograd.grad((probability / (1 - probability)).log().sum(), logits)
    total = of_all_tokens(LibraFullGradPlus(vit, score="log-odds"), images).sum(-1)
    assert_close(total, (slope * logits).sum(-1).detach(), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("method", SCORED)
def test_log_odds(method, vit, images):
    alone = method(vit).relevance(images, 3)
    of_log_odds = method(vit, score="log-odds")
    assert (of_log_odds.relevance(images, 3) - alone).abs().max() > 1e-3 * alone.abs().max()
    contrast = method(vit).relevance(images, 3, contrast=5)
    assert_close(of_log_odds.relevance(images, 3, contrast=5), contrast)
    vit.config.problem_type = "multi_label_classification"
    assert_close(of_log_odds.relevance(images, 3), alone)


@pytest.mark.parametrize("method", SCORED)
def test_wrong_score(method, vit):
    with pytest.raises(ValueError, match=r"score must be one of \['logit', 'log-odds'\], but got 'odds'."):
        method(vit, score="odds")


class Unknown(nn.Module):
    """A gate that no rule is known of."""

    def forward(self, x):
        return nn.functional.softplus(x)


@pytest.mark.parametrize("method", ALL)
def test_a_gate_that_is_not_known_is_an_error_of_the_balanced_ones(method, vit, images):
    vit.vit.layernorm = nn.Sequential(vit.vit.layernorm, Unknown())
    before = state(vit)
    if method not in BALANCED:
        method(vit).attribute(images, 3)
    else:
        with pytest.raises(RuntimeError, match=r"softplus in Unknown 'vit.layernorm.1', but has none.*register_rule"):
            method(vit).attribute(images, 3)
    assert state(vit) == before


@pytest.mark.parametrize(
    "rule", ["gate", lambda module, x: x * (nn.functional.softplus(x) / x).detach()], ids=["gate", "callable"]
)
def test_a_rule_of_the_user_s_own_is_the_way_round_it(rule, vit, images, monkeypatch):
    """The error names it as it is imported; with it, relevance and biases sum to the logit, of which none are left."""
    monkeypatch.setattr(registry, "_registered", dict(registry._registered))
    vit = without_biases(vit)
    vit.vit.layernorm = nn.Sequential(vit.vit.layernorm, Unknown())
    with pytest.raises(RuntimeError, match=r"Unknown 'vit.layernorm.1'.*captum_gmar\.register_rule\(Unknown, "):
        LibraFullGradPlus(vit).attribute(images.double(), 3)
    captum_gmar.register_rule(Unknown, rule)
    total = of_all_tokens(LibraFullGradPlus(vit), images.double()).sum(-1)
    assert_close(total, vit(images.double()).logits[:, 3].detach(), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("method", ALL)
@pytest.mark.parametrize(
    ("forward", "message"),
    [
        (lambda vit: lambda pixels: vit(pixels).logits + vit(pixels).logits, r"must run its 3 layers once each over"),
        (lambda vit: lambda pixels: vit(pixels).logits.detach(), "target must depend on attention layer 2"),
    ],
)
def test_what_is_no_single_pass_with_gradient(method, forward, message, vit, images):
    if method in BALANCED and "depend" in message:
        message = r"needs a rule for detach in the function that runs the model.* it is what is to be explained"
    with pytest.raises(RuntimeError, match=message):
        method(vit, forward_func=forward(vit)).attribute(images, 3)


@pytest.mark.parametrize("method", [CDAM])
def test_without_a_norm_before_the_last_attention(method, vit, images):
    layers = vit.vit.layers if hasattr(vit.vit, "layers") else vit.vit.encoder.layer
    for layer in layers:
        layer.layernorm_before = layer.layernorm_after = nn.Identity()
    with pytest.raises(RuntimeError, match=r"ViTForImageClassification must begin its last layer with"):
        method(vit).attribute(images, 3)


@pytest.mark.parametrize("method", ALL)
def test_dropout(method, make_vit, images):
    model = make_vit(hidden_dropout_prob=0.1).train()
    with pytest.raises(RuntimeError, match=r"model must run without dropout, but drops with p=0.1"):
        method(model).attribute(images, 3)
