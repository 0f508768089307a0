"""A rule that may read a layer by any way makes the same of it as over blocks."""

from functools import partial

import pytest
import torch
from torch.testing import assert_close

from captum_gmar.attr import rules
from captum_gmar.engine.blockwise import GradientBlocks, Layer, Scratch
from captum_gmar.engine.reading import LayerGradient
from captum_gmar.engine.ways import read_layer

RULES = [
    rules.GMARRule(),
    rules.GradientRolloutRule(head_fusion="gmar"),
    rules.GMARPlusPlusRule(),
    rules.GMARPlusPlusRule(residual=0),
    rules.GradSAMRule(),
    rules.LeGradRule(),
]


@pytest.mark.parametrize("rule", RULES, ids=repr)
def test_readings_and_blocks(rule):
    """Of a head and a row without any positive gradient as well."""
    random = torch.Generator().manual_seed(0)
    query, key, value, grad_output = torch.randn(4, 2, 3, 7, 5, generator=random, dtype=torch.float64)
    grad_output[0, 1] = grad_output[1, :, 4] = 0
    relevance = torch.rand(2, 7, generator=random, dtype=torch.float64)
    layer = Layer(query, key, None, 0.5)
    tensors = {"value": value, "output": value, "grad_output": grad_output}
    blocks = GradientBlocks(layer, Scratch(layer), **tensors, grads=[None] * 4)
    read = partial(read_layer, LayerGradient(query, key, value, grad_output, None, 0.5))
    (by_readings, of_heads), (over_blocks, importance) = rule.take(relevance, read), rule(relevance, blocks)
    assert_close(by_readings, over_blocks)
    assert_close(of_heads, importance)
