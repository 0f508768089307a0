"""The LRP rules of the benchmarks: what they conserve, and each against its formula in loops, in float64."""

import pytest
import torch
import torch.nn.functional as F
from families import make
from torch.testing import assert_close

pytest.importorskip("benchmarks.lrp", reason="the benchmarks are not installed; they run in a checkout")

from benchmarks.lrp import (
    ATTN_LRP,
    LRP_ROWS,
    LRPPass,
    LRPRules,
    following,
    gamma_linear,
    gamma_sum,
    lrp_method,
    lrp_relevance,
)
from captum_gmar.engine.hidden_states.libragrad import libra_gradients
from captum_gmar.engine.models.layers import transformer_layers

CONSTANT = {"ResLRP": LRP_ROWS["ResLRP, constant attention"], "no γ": LRPRules(True, mlp_gamma=0)}
TARGETS = torch.tensor([3, 0])


@pytest.fixture(params=["ViT", "DeiT"])
def model(request):
    return make(request.param)[0].double()


@pytest.fixture
def pixels():
    return torch.randn(2, 3, 32, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", CONSTANT)
def test_with_constant_attention_relevance_and_biases_sum_to_the_logit_at_every_layer(name, model, pixels):
    logits = model(pixels).logits
    with following(model, CONSTANT[name]) as tokens:
        followed = model(pixels).logits
    assert_close(followed, logits, rtol=1e-9, atol=1e-9)
    explained = followed.gather(1, TARGETS[:, None]).sum()
    for number, entering in enumerate(tokens):
        below = {id(p) for layer in transformer_layers(model)[:number] for p in layer.parameters()}
        biases = [p for name, p in model.named_parameters() if "bias" in name and id(p) not in below]
        parts = [entering, *biases]
        gradients = torch.autograd.grad(explained, parts, retain_graph=True, allow_unused=True, materialize_grads=True)
        total = sum(float((p * g).sum().detach()) for p, g in zip(parts, gradients, strict=True))
        assert total == pytest.approx(float(explained.detach()), rel=1e-9)


def test_without_gamma_it_is_the_balanced_gradient(model, pixels):
    with following(model, CONSTANT["no γ"]) as tokens:
        (found,) = torch.autograd.grad(model(pixels).logits[:, 3].sum(), tokens[0])
    kept = []
    handle = transformer_layers(model)[0].register_forward_pre_hook(lambda layer, args: kept.append(args[0]))
    with libra_gradients(model):
        logits = model(pixels.clone().requires_grad_()).logits
    handle.remove()
    (expected,) = torch.autograd.grad(logits[:, 3].sum(), kept[0])
    assert_close(found, expected, rtol=1e-9, atol=1e-12)


def share(summands, gamma):
    """The γ-rule in a loop: which part of a sum's relevance each summand gets."""
    total = sum(summands)
    boosted = [c * (1 + gamma * (c * total >= 0)) for c in summands]
    return [c / sum(boosted) for c in boosted]


def test_sum_by_hand():
    a, b = torch.tensor([3.0, -1.0, 1.0]).requires_grad_(), torch.tensor([1.0, 3.0, -3.0]).requires_grad_()
    total = gamma_sum(a, b, 1.0)
    assert_close(total.detach(), torch.tensor([4.0, 2.0, -2.0]))
    of_a, of_b = torch.autograd.grad(total.sum(), (a, b))
    # Of 6 and 2; of -1 and 6; of 1 and -6.
    assert_close(a.detach() * of_a, torch.tensor([4 * 6 / 8, 2 * -1 / 5, -2 * 1 / -5]))
    assert_close(b.detach() * of_b, torch.tensor([4 * 2 / 8, 2 * 6 / 5, -2 * -6 / -5]))


def test_sum_of_opposites_is_no_division_by_zero():
    a, b = torch.tensor([2.0, 0.0]).requires_grad_(), torch.tensor([-2.0, 0.0]).requires_grad_()
    for gradient in torch.autograd.grad(gamma_sum(a, b, 1.0).sum(), (a, b)):
        assert gradient.isfinite().all()


@pytest.mark.parametrize("gamma", [0.0, 0.25, 1.0])
def test_linear_in_loops(gamma):
    generator = torch.Generator().manual_seed(0)
    x, weight, bias = (torch.randn(size, dtype=torch.float64, generator=generator) for size in (4, (3, 4), 3))
    x, bias = x.requires_grad_(), bias.requires_grad_()
    output = gamma_linear(x, weight, bias, gamma=gamma)
    assert_close(output, F.linear(x, weight, bias))
    relevance = torch.randn(3, dtype=torch.float64, generator=generator)
    of_x, of_bias = torch.autograd.grad((output * (relevance / output.detach())).sum(), (x, bias))
    expected = torch.zeros(4, dtype=torch.float64)
    for j in range(3):
        shares = share([*(x.detach() * weight[j]).tolist(), float(bias[j].detach())], gamma)
        expected += relevance[j] * torch.tensor(shares[:-1], dtype=torch.float64)
        assert float((bias[j] * of_bias[j]).detach()) == pytest.approx(float(relevance[j]) * shares[-1])
    assert_close(x.detach() * of_x, expected)


def test_attention_gives_queries_and_keys_a_quarter_and_values_half(model):
    generator = torch.Generator().manual_seed(0)
    tensors = [torch.randn(1, 2, 5, 4, dtype=torch.float64, generator=generator).requires_grad_() for _ in range(3)]
    plain = torch.autograd.grad(F.scaled_dot_product_attention(*tensors).sin().sum(), tensors)
    with LRPPass(model, ATTN_LRP):
        attended = F.scaled_dot_product_attention(*tensors)
    gradients = torch.autograd.grad(attended.sin().sum(), tensors)
    for factor, found, expected in zip((0.25, 0.25, 0.5), gradients, plain, strict=True):
        assert_close(found, factor * expected)


@pytest.mark.parametrize("name", LRP_ROWS)
def test_as_a_method(name, model, pixels):
    before = {key: value.clone() for key, value in model.state_dict().items()}
    attributions = lrp_method(model, LRP_ROWS[name])(pixels, target=TARGETS)
    assert attributions.shape == pixels.shape
    relevance = lrp_relevance(model, LRP_ROWS[name], pixels, TARGETS)
    assert_close(attributions.sum((1, 2, 3)), relevance[:, -16:].sum(1))
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert not any(module._forward_pre_hooks for module in model.modules())
