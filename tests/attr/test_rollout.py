"""Rollout and raw attention: of one layer without residual they are the same. Their formulas are in test_methods."""

import pytest
import torch
from torch.testing import assert_close

from captum_gmar import AttentionRollout, RawAttention
from captum_gmar.engine.attention import forward
from captum_gmar.engine.kernels import workspace


def test_one_layer_without_residual_is_raw_attention(vit, images):
    alone = AttentionRollout(vit, residual=0, start_layer=-1)
    assert_close(alone.relevance(images), RawAttention(vit).relevance(images))


@pytest.mark.parametrize("block_elements", [1, 2**20])  # one example at a time, or all
@pytest.mark.parametrize("options", [{}, {"head_fusion": "max"}, {"recursion": "additive", "start_layer": -2}])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_layers_on_disk(vit, images, options, block_elements, dtype, monkeypatch, tmp_path):
    """The numbers are those without a file, which holds all layers and is closed afterwards, also by an error."""
    monkeypatch.setitem(workspace.BLOCK_ELEMENTS, "cpu", block_elements)
    inputs = images.to(dtype)
    expected = AttentionRollout(vit.to(dtype), **options).relevance(inputs)
    files, place = [], tmp_path / "layers"
    monkeypatch.setattr(forward, "TemporaryFile", lambda: files.append(place.open("w+b")) or files[-1])
    assert_close(AttentionRollout(vit, disk_offload=True, **options).relevance(inputs), expected)
    layer = 2 * inputs.shape[0] * 17 * vit.config.hidden_size * dtype.itemsize
    assert place.stat().st_size == 3 * layer
    vit.classifier.register_forward_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        AttentionRollout(vit, disk_offload=True, **options).relevance(inputs)
    assert [file.closed for file in files] == [True, True]
