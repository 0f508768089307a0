"""Rollout and raw attention: of one layer without residual they are the same. Their formulas are in test_methods."""

from torch.testing import assert_close

from captum_gmar import AttentionRollout, RawAttention


def test_one_layer_without_residual_is_raw_attention(vit, images):
    alone = AttentionRollout(vit, residual=0, start_layer=-1)
    assert_close(alone.relevance(images), RawAttention(vit).relevance(images))
