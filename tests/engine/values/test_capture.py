"""Values that attention mixes, however a model writes it."""

import pytest
import torch
from oracle import log_odds as written_log_odds
from torch import nn
from torch.testing import assert_close

from captum_gmar.attr.scores import log_odds
from captum_gmar.engine.models.patch_grid import Logits
from captum_gmar.engine.plan import Plan
from captum_gmar.engine.request import Request
from captum_gmar.engine.values.capture import ValueMode
from captum_gmar.engine.values.explain import explain_values
from engine.values.test_explain import Mixings, make


@pytest.mark.parametrize(
    "name", [*("Swinv2", "PVT", "CvT", "LeViT", "Hiera"), *("TimeSformer", "DETR", "Deformable DETR")]
)
def test_every_attention_is_met_and_what_it_gives_is_conserved(name):
    """Values times their gradient sum to what attention gives times its gradient, in every layer."""
    family, model, inputs = make(name)
    selection = (slice(None), *family.target) if isinstance(family.target, tuple) else (slice(None), family.target)
    with Mixings() as mixings, ValueMode(0) as met:
        score = model(inputs.requires_grad_()).logits[selection].sum()
    values = [mixed.value for mixed in met.values]
    assert [id(value) for value in values] == [id(value) for value, _ in mixings.kept if value.requires_grad]
    outputs = [output for value, output in mixings.kept if value.requires_grad]
    of_values = torch.autograd.grad(score, values, retain_graph=True)
    of_outputs = torch.autograd.grad(score, outputs)
    for value, gradient, output, output_gradient in zip(values, of_values, outputs, of_outputs, strict=True):
        assert_close((value * gradient).sum(), (output * output_gradient).sum(), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("product", "is_attention"),
    [
        (lambda weights, values: weights @ values, True),
        (lambda weights, values: torch.bmm(values.mT, weights.transpose(1, 2)), True),
        (lambda weights, values: torch.einsum("nij,njd->nid", weights, values), True),
        (lambda weights, values: torch.einsum("...ij,...jd->...id", [weights, values]), True),
        (lambda weights, values: torch.einsum("nqc,nqd->ncd", weights[..., :-1], values), False),
        (lambda weights, values: torch.einsum("nqd,...qc->dc", values, weights), False),
        (lambda weights, values: values.mT @ weights, False),
    ],
)
def test_attention_sums_over_what_its_softmax_normalised(product, is_attention):
    """A sum over queries of their classes' probabilities times their masks is no attention."""
    scores, values = (torch.randn(2, 6, 6, requires_grad=True) for _ in range(2))
    with ValueMode(0) as met:
        product(scores.softmax(-1), values)
    assert len(met.values) == is_attention


class AmongChannels(nn.Module):
    """A layer whose channels attend to one another, over all places."""

    def __init__(self):
        super().__init__()
        self.qkv, self.attention_output = nn.Linear(8, 24), nn.Linear(8, 8)

    def forward(self, tokens):
        query, key, value = self.qkv(tokens).unflatten(-1, (3, 2, 4)).permute(2, 0, 3, 1, 4)
        self.value = value.mT
        attended = (query.mT @ key).softmax(-1) @ self.value  # (N, heads, channels, places)
        return tokens + self.attention_output(attended.permute(0, 3, 1, 2).flatten(2))


def test_attention_among_channels():
    torch.manual_seed(0)
    layer = AmongChannels()
    cut = nn.Sequential(nn.Conv2d(3, 8, 4, 4), nn.Flatten(2), Transposed())
    model = nn.Sequential(cut, nn.Sequential(layer), Mean(), nn.Linear(8, 5)).double().eval()
    inputs = torch.randn(2, 3, 12, 20, dtype=torch.float64)
    (gradient,) = torch.autograd.grad(written_log_odds(model(inputs))[:, 2].sum(), layer.value)
    (found,) = explain_values(model, Logits(model), Plan(score=log_odds), inputs, Request([2]))
    assert_close(found.patch_relevance, (layer.value * gradient).sum((1, 2)).view(2, 3, 5), rtol=1e-6, atol=1e-9)


class Transposed(nn.Module):
    def forward(self, tokens):
        return tokens.mT


class Mean(nn.Module):
    def forward(self, tokens):
        return tokens.mean(1)
