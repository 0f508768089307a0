"""Rollout and raw attention against the attention that transformers returns."""

import torch
from eager import eager_attention, patches_of
from torch.testing import assert_close

from captum_gmar import AttentionRollout, RawAttention


def test_rollout_is_the_product_of_attention_with_residuals(vit, images):
    mean = eager_attention(vit, images).attention.mean(2)  # (L, N, T, T)
    residual = torch.eye(mean.shape[-1], dtype=torch.float64)
    product = residual.expand_as(mean[0])
    for layer in mean:
        product = (layer + residual) / 2 @ product
    assert_close(AttentionRollout(vit.double()).relevance(images.double()), patches_of(product[:, 0]))


def test_one_layer_without_residual_is_raw_attention(vit, images):
    """The last layer alone, as CLS attends there."""
    expected = patches_of(eager_attention(vit, images).attention[-1].mean(1)[:, 0])
    vit, images = vit.double(), images.double()
    assert_close(RawAttention(vit).relevance(images), expected)
    assert_close(AttentionRollout(vit, residual=0, start_layer=-1).relevance(images), expected)


def test_largest_head_is_normalised_again(vit, images):
    largest = eager_attention(vit, images).attention[-1].amax(1)[:, 0]
    expected = patches_of(largest / largest.sum(-1, keepdim=True))
    assert_close(RawAttention(vit.double(), head_fusion="max").relevance(images.double()), expected)


def test_the_class_changes_nothing(vit, images):
    rollout = AttentionRollout(vit)
    assert torch.equal(rollout.relevance(images, target=0), rollout.relevance(images, target=3))
