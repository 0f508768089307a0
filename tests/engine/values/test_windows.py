"""Relevance handed down through windows against matrices over all places of a stage, written out in float64."""

import re

import pytest
import torch
from field_families import FIELD_FAMILIES, swin
from field_oracle import Softmaxes, on_finest, written_out
from snapshots import state
from torch.testing import assert_close

from captum_gmar import (
    AttentionGradCAM,
    AttentionRollout,
    GMARAttribution,
    GMARPlusPlus,
    GradientRollout,
    GradSAM,
    LeGrad,
    RawAttention,
)

WINDOWED = ("Swin", "Swinv2", "DonutSwin", "MobileViT")
TARGET = 1


def make(name):
    torch.manual_seed(0)
    family = FIELD_FAMILIES[name]
    model = family.make().eval().double()
    return family, model, torch.randn(2, *family.shape, dtype=torch.float64)


def shares(importance):
    """Of the heads (N, H), alike where no head has any."""
    return (importance / importance.sum(1, keepdim=True)).nan_to_num(1 / importance.shape[1])


class Stages:
    """A and G of every attention layer as matrices (N, H, T + P, T + P), over the T places of its stage and then
    P tokens of padding, each by itself. And merging, as a matrix (T above, T below)."""

    def __init__(self, family, model, inputs):
        with Softmaxes() as softmaxes:
            logit = written_out(model)(inputs.clone().requires_grad_()).logits[:, TARGET].sum()
        gradients = torch.autograd.grad(logit, softmaxes.kept)
        self.shapes = [shape for shape, _ in family.places]
        self.attention, self.gradient = [], []
        for (shape, places), a, g in zip(family.places, softmaxes.kept, gradients, strict=True):
            self.attention.append(self.over_places(shape, places, a.detach()))
            self.gradient.append(self.over_places(shape, places, g))

    @staticmethod
    def over_places(shape, places, windows):
        count, places = shape[0] * shape[1], places.clone()
        padded = places < 0
        places[padded] = count + torch.arange(int(padded.sum()))
        size = count + int(padded.sum())
        whole = torch.zeros(2, windows.shape[1], size, size, dtype=torch.float64)
        for example, of_example in enumerate(windows.unflatten(0, (2, -1))):
            for window, tokens in zip(of_example, places, strict=True):
                whole[example][:, tokens[:, None], tokens[None]] = window
        return whole

    def merging(self, layer):
        """What the layer above hands to this one."""
        (high, wide), (rows, columns) = self.shapes[layer + 1], self.shapes[layer]
        times = -(-rows // high)
        owner = (torch.arange(rows) // times)[:, None] * wide + (torch.arange(columns) // times)[None]
        shares = torch.nn.functional.one_hot(owner.flatten(), high * wide).double().T
        return shares / shares.sum(1, keepdim=True)

    def rolled_out(self, matrix, first=0):
        """From the mean of the last layer's places down, of each layer's matrix (N, T + P, T + P)."""
        high, wide = self.shapes[-1]
        row = torch.full((2, 1, high * wide), 1 / (high * wide), dtype=torch.float64)
        for layer in reversed(range(first, len(self.shapes))):
            count = self.shapes[layer][0] * self.shapes[layer][1]
            row = row if layer == len(self.shapes) - 1 else row @ self.merging(layer)
            row = (row @ matrix(layer)[:, :count])[..., :count]
        return row[:, 0].view(2, *self.shapes[first])

    def gmar_weights(self, layer, norm):
        magnitude = self.gradient[layer].abs() if norm == "l1" else self.gradient[layer] ** 2
        importance = magnitude.sum((-2, -1)) if norm == "l1" else magnitude.sum((-2, -1)).sqrt()
        return shares(importance)

    def gmar(self, norm):
        def matrix(layer):
            mean = torch.einsum("nh,nhij->nij", self.gmar_weights(layer, norm), self.attention[layer])
            return (mean + torch.eye(mean.shape[-1])) / 2

        return self.rolled_out(matrix)

    def rollout(self, fuse):
        def matrix(layer):
            fused = fuse(self.attention[layer]) + torch.eye(self.attention[layer].shape[-1])
            return fused / fused.sum(-1, keepdim=True)

        return self.rolled_out(matrix)

    def gradient_rollout(self, is_gmar):
        def matrix(layer):
            heads = (self.attention[layer] * self.gradient[layer]).clamp(min=0)
            weights = self.gmar_weights(layer, "l1") if is_gmar else torch.full(heads.shape[:2], 1 / heads.shape[1])
            return torch.einsum("nh,nhij->nij", weights.double(), heads) + torch.eye(heads.shape[-1])

        return self.rolled_out(matrix)

    def gmar_plus_plus(self):
        def matrix(layer):
            positive = self.gradient[layer].clamp(min=0)
            importance = positive.sum((-2, -1))
            fused = torch.einsum("nh,nhij->nij", shares(importance), self.attention[layer] * positive)
            fused = fused + torch.eye(fused.shape[-1])
            return fused / fused.sum(-1, keepdim=True)

        return self.rolled_out(matrix)

    def grad_sam(self):
        fields = []
        for shape, a, g in zip(self.shapes, self.attention, self.gradient, strict=True):
            count = shape[0] * shape[1]
            products = (a * g.clamp(min=0))[:, :, :count, :count]
            fields.append(products.mean((1, 2)).view(2, *shape))
        return on_finest(fields) / len(fields)

    def last(self, of_heads):
        layer = len(self.shapes) - 1
        return self.rolled_out(lambda _: of_heads(self.attention[layer], self.gradient[layer]).mean(1), layer)


METHODS = {
    "GMAR, L1": (GMARAttribution, lambda stages: stages.gmar("l1")),
    "GMAR, L2": (lambda model: GMARAttribution(model, norm="l2"), lambda stages: stages.gmar("l2")),
    "rollout": (AttentionRollout, lambda stages: stages.rollout(lambda heads: heads.mean(1))),
    "rollout of the largest": (
        lambda model: AttentionRollout(model, head_fusion="max"),
        lambda stages: stages.rollout(lambda heads: heads.amax(1)),
    ),
    "gradient rollout": (GradientRollout, lambda stages: stages.gradient_rollout(False)),
    "gradient rollout, GMAR's weights": (
        lambda model: GradientRollout(model, head_fusion="gmar"),
        lambda stages: stages.gradient_rollout(True),
    ),
    "GMAR++": (GMARPlusPlus, lambda stages: stages.gmar_plus_plus()),
    "Grad-SAM": (GradSAM, lambda stages: stages.grad_sam()),
    "raw attention": (RawAttention, lambda stages: stages.last(lambda a, g: a)),
    "attention Grad-CAM": (AttentionGradCAM, lambda stages: stages.last(lambda a, g: (a * g).clamp(min=0))),
}


@pytest.fixture(scope="module", params=WINDOWED)
def case(request):
    family, model, inputs = make(request.param)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model, inputs, Stages(family, model, inputs)


@pytest.mark.parametrize("name", METHODS)
def test_as_written_out(case, name):
    model, inputs, stages = case
    method, written = METHODS[name]
    with Softmaxes():  # in double precision, also where the model says single
        relevance = method(model).relevance(inputs, target=TARGET)
    assert_close(relevance, written(stages), rtol=1e-7, atol=1e-12)
    assert relevance.abs().sum() > 1e-9


def test_attributions_keep_the_sum_and_the_model():
    _, model, inputs = make("Swin")
    before = state(model)
    gmar = GMARAttribution(model)
    attributions, relevance = gmar.attribute(inputs, target=[1, 2]), gmar.relevance(inputs, target=[1, 2])
    assert attributions.shape == inputs.shape
    assert_close(attributions.sum((1, 2, 3)), relevance.sum((1, 2)))
    assert state(model) == before
    alone = torch.cat([gmar.relevance(inputs[[n]], target=target) for n, target in enumerate((1, 2))])
    assert_close(relevance, alone, rtol=1e-9, atol=1e-12)
    assert_close(gmar.explain(inputs, torch.tensor([[0, 1], [0, 2]])).relevance[:, 1], alone, rtol=1e-9, atol=1e-12)


def test_without_padding_all_relevance_arrives():
    torch.manual_seed(0)
    model = swin("Swin", image_size=16).eval().double()  # 8x8 patches in windows of 4, then 4x4
    inputs = torch.randn(2, 3, 16, 16, dtype=torch.float64)
    for method in (GMARAttribution, AttentionRollout, GMARPlusPlus):
        relevance = method(model).relevance(inputs, target=TARGET)
        assert relevance.shape == (2, 8, 8)
        assert_close(relevance.sum((1, 2)), torch.ones(2, dtype=torch.float64))


def test_start_layer_and_tokens():
    _, model, inputs = make("Swin")
    last = GMARAttribution(model, start_layer=-1, tokens=(4, 6)).relevance(inputs, target=TARGET)
    assert last.shape == (2, 5, 7)
    window = torch.zeros(5, 7, dtype=torch.bool)
    window[4:, 4:] = True
    assert (last[:, window] > 0).all()
    assert not last[:, ~window].any()
    with pytest.raises(ValueError, match="one of the model's 3 layers"):
        GMARAttribution(model, start_layer=3).relevance(inputs, target=TARGET)
    with pytest.raises(ValueError, match="cls"):
        GMARAttribution(model, tokens="cls").relevance(inputs, target=TARGET)


def test_heads_that_a_layer_lacks_weigh_nothing():
    torch.manual_seed(0)
    model = swin("Swin", num_heads=[2, 4]).eval()
    importance = GMARAttribution(model).head_importance(torch.randn(2, 3, 20, 28), target=TARGET)
    assert importance.shape == (2, 3, 4)
    assert not importance[:, :2, 2:].any()
    assert_close(importance.sum(-1), torch.ones(2, 3))


@pytest.mark.parametrize("precision", [torch.float16, torch.bfloat16])
def test_low_precision_finds_the_same_places(precision):
    torch.manual_seed(0)
    model, inputs = (swin("Swin").eval(), torch.randn(3, 3, 60, 60))  # and more tokens than halves count
    expected = AttentionRollout(model).relevance(inputs)
    found = AttentionRollout(model.to(precision)).relevance(inputs.to(precision))
    assert found.dtype == torch.float32
    assert_close(found, expected, rtol=0.1, atol=1e-5)


@pytest.mark.parametrize(
    ("method", "family", "says"),
    [
        (LeGrad, "Swin", "several grids"),
        (lambda model: GMARAttribution(model, recursion="forward"), "Swin", "recursion='rollout'"),
        (lambda model: AttentionRollout(model, recursion="additive"), "Swin", "recursion='rollout'"),
        *(
            (method, family, "queries and keys are not of the same tokens. Use TokenEvidence")
            for method in (GMARAttribution, AttentionRollout)
            for family in ("PVT", "Hiera")
        ),
    ],
)
def test_what_is_not_defined(method, family, says):
    _, model, inputs = make(family)
    with pytest.raises((RuntimeError, ValueError), match=re.escape(says)):
        method(model).relevance(inputs, target=TARGET)
