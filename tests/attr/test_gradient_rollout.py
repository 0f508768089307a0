"""Gradient rollout, attention Grad-CAM and GMAR++ against attention and gradient that transformers gives."""

import torch
from eager import eager_attention, patches_of
from torch.testing import assert_close

from captum_gmar import AttentionGradCAM, GMARPlusPlus, GradientRollout


def test_gradient_rollout(vit, images):
    eager = eager_attention(vit, images, target=2)
    supported = (eager.attention * eager.gradient).clamp(min=0).mean(2)
    relevance = torch.eye(supported.shape[-1], dtype=torch.float64).expand_as(supported[0])
    for layer in supported:
        relevance = relevance + layer @ relevance
    found = GradientRollout(vit.double()).relevance(images.double(), target=2)
    assert_close(found, patches_of(relevance[:, 0]))


def test_grad_cam_is_the_last_layer_alone(vit, images):
    eager = eager_attention(vit, images, target=2)
    expected = (eager.attention[-1] * eager.gradient[-1]).clamp(min=0).mean(1)[:, 0]
    found = AttentionGradCAM(vit.double()).relevance(images.double(), target=2)
    assert_close(found, patches_of(expected))


def test_gmar_plus_plus(vit, images):
    eager = eager_attention(vit, images, target=2)
    positive = eager.gradient.clamp(min=0)
    strength = positive.sum((-1, -2))  # (L, N, H)
    weights = (strength / strength.sum(-1, keepdim=True))[..., None, None]
    identity = torch.eye(positive.shape[-1], dtype=torch.float64)
    mixed = (weights * eager.attention * positive).sum(2) + identity
    product = identity.expand_as(mixed[0])
    for layer in mixed / mixed.sum(-1, keepdim=True):
        product = layer @ product
    found = GMARPlusPlus(vit.double()).relevance(images.double(), target=2)
    assert_close(found, patches_of(product[:, 0]))


def test_the_scale_of_the_logits_scales_grad_cam(vit, images):
    once = AttentionGradCAM(vit).relevance(images, target=1)
    twice = AttentionGradCAM(vit, forward_func=lambda inputs: 2 * vit(inputs).logits).relevance(images, target=1)
    assert_close(twice, 2 * once)
