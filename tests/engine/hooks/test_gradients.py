"""Gradients of the explained outputs against those of each example."""

import pytest
import torch
from torch.testing import assert_close

from captum_gmar.engine.hooks.autograd_graph import gradients


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
