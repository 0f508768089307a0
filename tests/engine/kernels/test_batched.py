"""Layers that are read together, once the way back is over, against the formulas in float64 and against blocks."""

import pytest
import torch
from methods import METHODS, implemented
from torch.testing import assert_close

from captum_gmar.engine.kernels import batched
from captum_gmar.engine.kernels.reduction import Reduction
from engine.kernels.test_dispatch import dense, layer_gradient


def test_a_query_that_may_look_nowhere_and_an_additive_mask():
    layer, row = layer_gradient(masked=True)
    layer.mask[3] = False
    added = layer._replace(mask=torch.zeros(layer.mask.shape).masked_fill(~layer.mask, -torch.inf).double())
    for read in batched.readers([layer, added]):
        assert_close(read(Reduction(row, "attention")), dense(layer, Reduction(row, "attention")))


def test_layers_that_are_not_alike():
    (layer, row), (larger, _) = layer_gradient(), layer_gradient(dim=16)
    for of_layer, read in zip((layer, larger), batched.readers([layer, larger]), strict=True):
        assert_close(read(Reduction(row, "positive", "l1")), dense(of_layer, Reduction(row, "positive", "l1")))


@pytest.mark.parametrize("name", [name for name in METHODS if METHODS[name].expected is not None])
def test_half_precision(name, vit, images):
    expected = implemented(METHODS[name].make(vit), "blocks").relevance(images, 3).flatten(1)
    found = implemented(METHODS[name].make(vit.bfloat16()), "batched").relevance(images.bfloat16(), 3).flatten(1)
    assert found.dtype == torch.float32
    pairs = torch.stack([expected, found], 1)
    assert min(float(torch.corrcoef(pair)[0, 1]) for pair in pairs) > 0.98
