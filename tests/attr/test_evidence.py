"""Attention evidence: by hand, by what it adds up to, and on scenes where the truth is known."""

import pytest
import torch
from families import TINY_IMAGE
from torch import nn, tensor
from torch.testing import assert_close
from transformers import ViTConfig, ViTForImageClassification

from captum_gmar import AttentionEvidence
from captum_gmar.attr.rules import EvidenceRule
from captum_gmar.demo import load_model, load_scene
from captum_gmar.engine.explain import Pass, explain_model
from captum_gmar.engine.models.patch_grid import Logits
from captum_gmar.engine.plan import Plan
from captum_gmar.engine.request import Request
from captum_gmar.metrics import class_sensitivity


class Reading(nn.Module):
    """A layer in which every token attends to all alike and takes over their numbers, times a factor."""

    def __init__(self, factor):
        super().__init__()
        self.attention, self.factor = nn.Identity(), factor

    def forward(self, tokens):
        blind = torch.zeros_like(tokens)[:, None]
        attended = nn.functional.scaled_dot_product_attention(blind, blind, tokens[:, None])
        return tokens + self.factor * attended[:, 0]


class Reader(nn.Module):
    """A CLS token of zeros, patches of a pixel each with a number for each of two classes, and no weights."""

    def __init__(self, *factors):
        super().__init__()
        self.patch_embed = nn.Conv2d(2, 2, 2, 2, bias=False)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, 2))
        self.layers = nn.ModuleList(Reading(factor) for factor in factors)
        with torch.no_grad():
            self.patch_embed.weight.copy_(torch.eye(2)[:, :, None, None] * tensor([[1.0, 0.0], [0.0, 0.0]]))

    def forward(self, pixels):
        patches = self.patch_embed(pixels).flatten(2).mT
        tokens = torch.cat([self.cls_token.expand(len(patches), -1, -1), patches], 1)
        for layer in self.layers:
            tokens = layer(tokens)
        return tokens[:, 0]


def pixels(*patches):
    """An image of patches side by side, of so much of each class."""
    image = torch.zeros(1, 2, 2, 2 * len(patches))
    image[0, :, 0, ::2] = tensor(patches).T
    return image


def test_two_patches_of_two_classes():
    """Each patch gives a third of what it holds: for its class, and as much against the only other."""
    evidence, image = AttentionEvidence(Reader(1.0)), pixels((6.0, 0.0), (0.0, 3.0))
    assert_close(evidence.relevance(image, 0), tensor([[[2 / 3, -1 / 3]]]))
    assert_close(evidence.relevance(image, 1), tensor([[[-2 / 3, 1 / 3]]]))
    assert_close(evidence.relevance(image, 0, contrast=1), tensor([[[2 / 3, -1 / 3]]]))
    sensitivity = class_sensitivity(evidence.attribute, Reader(1.0), image, patch_size=2)
    assert_close(sensitivity, tensor([2.0]))


def test_two_layers_by_hand():
    """The patches give CLS 2 and 1 of 3, then what they hold by then: 2 + 1 and 1 + 1, and CLS itself its 1."""
    evidence, image = AttentionEvidence(Reader(1.0, 1.0)), pixels((2.0, 0.0), (1.0, 0.0))
    given = tensor([2.0, 1.0]) / 3 + tensor([3.0, 2.0]) / 3
    assert_close(evidence.relevance(image, 0), given.view(1, 1, 2) / (given.sum() + 1 / 3))


def test_evidence_that_is_against_everything():
    relevance = AttentionEvidence(Reader(-1.0)).relevance(pixels((2.0, 0.0), (1.0, 0.0)), 0)
    assert_close(relevance, tensor([[[-2 / 3, -1 / 3]]]))


def test_no_evidence_at_all():
    with pytest.warns(UserWarning, match="All gradients of an attention layer are zero"):
        relevance = AttentionEvidence(Reader(0.0)).relevance(pixels((2.0, 0.0), (1.0, 0.0)), 0)
    assert_close(relevance, torch.zeros(1, 1, 2))


def linear_vit():
    """Attention written to the residual stream, and read from there, with nothing in between that is not linear."""
    torch.manual_seed(0)
    model = ViTForImageClassification(ViTConfig(**TINY_IMAGE)).eval().double()
    model.vit.layernorm = nn.Identity()
    layers = model.vit.layers if hasattr(model.vit, "layers") else model.vit.encoder.layer
    for layer in layers:
        for name, parameter in layer.named_parameters():
            if not name.startswith(("attention", "layernorm_before")):
                parameter.data.zero_()  # so the MLP adds nothing
            elif name.endswith("bias"):
                parameter.data.zero_()
    return model, layers


def test_all_evidence_is_what_attention_adds_to_the_logit(images):
    """Of a model that is linear after attention, to the last digit: logit = the embedded CLS token's + evidence."""
    model, _ = linear_vit()
    pixels = images.double()
    (found,) = explain_model(
        (Pass.ATTENTION,), model, Logits(model), Plan(EvidenceRule(), separate=True), pixels, Request([3])
    )
    evidence = found.relevance.sum(-1) * TINY_IMAGE["num_hidden_layers"]  # the mean over layers
    with torch.no_grad():
        logits = model(pixels).logits[:, 3]
        embedded = model.classifier(model.vit.embeddings(pixels)[:, 0])[:, 3]
    assert_close(evidence, logits - embedded, rtol=1e-9, atol=1e-12)


def test_a_layer_gives_what_its_attention_wrote(vit, images):
    """Evidence of the last layer alone, of any model: the gradient at its attention's output, times that output."""
    kept = []
    last = vit.vit.layers[-1] if hasattr(vit.vit, "layers") else vit.vit.encoder.layer[-1]
    name = "o_proj" if hasattr(last.attention, "o_proj") else "output.dense"
    handle = last.attention.get_submodule(name).register_forward_pre_hook(lambda module, args: kept.append(args[0]))
    logits = vit(images).logits[:, 3]
    handle.remove()
    (gradient,) = torch.autograd.grad(logits.sum(), kept)
    (found,) = explain_model(
        (Pass.ATTENTION,), vit, Logits(vit), Plan(EvidenceRule(), start_layer=-1, separate=True), images, Request([3])
    )
    assert_close(found.relevance.sum(-1), (gradient * kept[0]).sum((1, 2)), rtol=1e-4, atol=1e-7)


def test_what_leaves_the_last_layer_is_the_models_own_bit_for_bit(vit, images):
    seen = []

    def forward(inputs):
        seen.append(vit(inputs).logits)
        return seen[-1]

    for separate in (True, False):
        explain_model(
            (Pass.ATTENTION,), vit, Logits(forward), Plan(EvidenceRule(), separate=separate), images, Request([3])
        )
    assert_close(seen[0][-4:], seen[1], rtol=0, atol=0)


def test_each_of_two_objects_has_its_own_evidence():
    """On the built-in scenes: much evidence for a class lies on its object, and less than none on the other."""
    scenes = [load_scene(seed, objects=2) for seed in range(20)]
    inputs = torch.cat([scene.pixel_values for scene in scenes])
    evidence = AttentionEvidence(load_model())
    on_objects = []
    for own, other in ((0, 1), (1, 0)):
        maps = evidence.attribute(inputs, [scene.labels[own] for scene in scenes]).sum(1)
        masks = [[torch.as_tensor(scene.masks[index]) > 0 for scene in scenes] for index in (own, other)]
        on_objects.append([torch.stack([m[k].sum() for m, k in zip(maps, of, strict=True)]) for of in masks])
    for on_own, on_other in on_objects:
        assert on_own.mean() > 0.2
        assert on_other.mean() < 0
