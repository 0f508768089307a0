"""Queries to graphs that are known."""

import pytest
import torch
from torch.testing import assert_close

from captum_gmar.engine.hooks.autograd_graph import (
    Pooling,
    bottlenecks,
    depends,
    gradients,
    reorders_rows,
    shape_of,
    upstream,
)


@pytest.fixture
def inputs():
    return torch.randn(4, 3, requires_grad=True).clone()


def test_each_example_has_its_own_gradient():
    inputs = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    unused = torch.ones(1, requires_grad=True)
    selected = inputs.exp().prod(1)
    found, nothing = gradients(selected, (inputs, unused), retain_graph=True, allow_unused=True)
    assert nothing is None
    assert_close(found, selected.detach()[:, None].expand(-1, 4))  # the derivative of exp(sum) is itself
    assert_close(gradients(selected, (inputs,))[0], found)
    with pytest.raises(RuntimeError, match="second time"):
        gradients(selected, (inputs,))


def test_dependence(inputs):
    middle, cuts = inputs.exp(), []
    assert depends([inputs.sin(), middle.sum()], middle.grad_fn)
    assert not depends([inputs.sin()], middle.grad_fn, cuts)
    assert not cuts
    assert not depends([torch.ones(2)], middle.grad_fn)


def test_bottlenecks_are_on_every_path(inputs):
    narrow = inputs.sum(1)
    output = (narrow.sin() + narrow.cos()).exp()
    nodes = bottlenecks(output.grad_fn, inputs.grad_fn)
    assert [node.name() for node in nodes] == ["ExpBackward0", "AddBackward0", "SumBackward1"]
    assert {inputs.grad_fn, narrow.grad_fn} < upstream(output.grad_fn)
    assert shape_of(narrow.grad_fn) == (4,)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda x: x.flip(0), True),
        (lambda x: x.flip(-2), True),
        (lambda x: x.flip(1), False),
        (lambda x: x.roll(1, 0), True),
        (lambda x: x[torch.tensor([1, 0, 2, 3])], True),
        (lambda x: x[torch.arange(4)], False),
        (lambda x: x[torch.tensor([True, False, True, True])], False),
        (lambda x: x.index_select(-2, torch.tensor([0, 2, 1, 3])), True),
        (lambda x: x.index_select(1, torch.tensor([2, 1, 0])), False),
        (lambda x: torch.take_along_dim(x, torch.tensor([[1], [0], [2], [3]]), 0), True),
        (lambda x: x.gather(1, torch.tensor([[1], [0], [2], [1]])), False),
        (lambda x: x.sort(0, descending=True).values, True),
        (lambda x: torch.cat([x[-1:], x[:-1]]), True),
        (lambda x: torch.cat([x[:2].exp(), x[2:]]), False),
        (lambda x: torch.cat([x[:, 1:], x[:, :1]], 1), False),
        (lambda x: torch.stack([x[-1], x[0]]), True),
        (lambda x: torch.stack([row.exp() for row in x]), False),
        (lambda x: torch.stack([*x.unbind()][::-1]), True),
        (lambda x: torch.vstack([x.chunk(2)[1], x.chunk(2)[0]]), True),
        (torch.exp, False),
    ],
)
def test_operations_that_reorder_rows(inputs, change, expected):
    assert reorders_rows(change(inputs).grad_fn) == expected


def test_a_pooling_that_the_output_reads(inputs):
    pooled = inputs.mean(1)
    pooling = Pooling(torch.ones(4, 3) / 3, pooled.grad_fn)
    assert pooling.is_read_by(pooled * 2)
    assert pooling.is_read_by(type("Output", (), {"logits": None, "pooler_output": pooled.exp()}))
    assert not pooling.is_read_by(inputs * 2)
    assert not pooling.is_read_by("text")
