"""A rule that may read a layer by any way makes the same of it as over blocks."""

from functools import partial

import pytest
import torch
from torch.testing import assert_close

from captum_gmar.attr import rules
from captum_gmar.engine.attention.explain import run_sweep
from captum_gmar.engine.kernels import dispatch
from captum_gmar.engine.kernels.blocks import GradientBlocks
from captum_gmar.engine.kernels.dispatch import IMPLEMENTATIONS, read_layer
from captum_gmar.engine.kernels.layer import AttentionLayer, LayerGradient
from captum_gmar.engine.kernels.workspace import Scratch
from captum_gmar.engine.plan import Plan

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
    layer = AttentionLayer(query, key, None, 0.5)
    tensors = {"value": value, "output": value, "grad_output": grad_output}
    blocks = GradientBlocks(layer, Scratch(layer), **tensors, grads=[None] * 4)
    read = partial(read_layer, LayerGradient(query, key, value, grad_output, None, 0.5))
    (by_readings, of_heads), (over_blocks, importance) = rule.take(relevance, read), rule(relevance, blocks)
    assert_close(by_readings, over_blocks)
    assert_close(of_heads, importance)


@pytest.mark.parametrize("way", ["value", "blocks"])
@pytest.mark.parametrize("recursion", rules.RECURSIONS)
@pytest.mark.parametrize("weighted", [False, True])
def test_sweeps_by_rows(monkeypatch, recursion, weighted, way):
    """As over blocks, of three layers."""
    random = torch.Generator().manual_seed(0)
    layers = [
        AttentionLayer(*torch.randn(2, 2, 3, 7, 5, generator=random, dtype=torch.float64), None, None) for _ in range(3)
    ]
    start = torch.tensor([[1.0] + 6 * [0.0], 4 * [0.25] + 3 * [0.0]], dtype=torch.float64)
    importance = [torch.rand(2, 3, generator=random, dtype=torch.float64) for _ in range(3)] if weighted else None
    sweep = rules.RolloutSweep(0.7, recursion)
    over_blocks = run_sweep(Plan(sweep=sweep, implementation="blocks"), layers, start, importance)
    is_open, read = IMPLEMENTATIONS[way]
    reductions = []
    counted = is_open, lambda layer, reduction: reductions.append(reduction) or read(layer, reduction)
    monkeypatch.setattr(dispatch, "IMPLEMENTATIONS", {way: counted})
    assert_close(run_sweep(Plan(sweep=sweep, implementation="fused"), layers, start, importance), over_blocks)
    assert len(reductions) == 3


@pytest.mark.parametrize("of_masks", [True, False])
def test_sweeps_that_need_blocks(monkeypatch, of_masks):
    """Where a mask may hide all keys, or the greatest of the heads is taken."""
    query = torch.randn(1, 2, 4, 5, dtype=torch.float64)
    layer = AttentionLayer(query, query, torch.eye(4, dtype=torch.bool) if of_masks else None, None)
    sweep = rules.RolloutSweep(head_fusion="mean" if of_masks else "max")
    monkeypatch.setattr(dispatch, "IMPLEMENTATIONS", {})
    start = torch.full((1, 4), 0.25, dtype=torch.float64)
    assert run_sweep(Plan(sweep=sweep, implementation="fused"), [layer], start, None).sum() > 0
