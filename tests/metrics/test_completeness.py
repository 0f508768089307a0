"""Completeness errors by hand and of integrated gradients."""

import pytest
import torch
from captum.attr import IntegratedGradients
from torch import nn, tensor
from torch.testing import assert_close

from captum_gmar.metrics import completeness_error


def test_by_hand():
    maps = tensor([[3.0, -1.0], [0.0, 4.0], [1.0, 1.0], [1.0, -1.0]]).view(4, 1, 1, 2)
    assert_close(completeness_error(maps, tensor([4.0, -4.0, 0.0, 0.0])), tensor([0.5, 2.0, 1.0, 0.0]))


def test_integrated_gradients_miss_what_the_baseline_holds():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.Tanh(), nn.Linear(8, 3)).double()
    inputs = torch.randn(2, 3, 2, 2, dtype=torch.float64)
    maps = IntegratedGradients(net).attribute(inputs, target=1, n_steps=200)
    outputs, nothing = net(inputs)[:, 1], net(torch.zeros_like(inputs))[:, 1]
    assert_close(completeness_error(maps, outputs - nothing), torch.zeros(2, dtype=torch.float64), atol=1e-6, rtol=0)
    assert_close(completeness_error(maps, outputs), (nothing / outputs).abs().detach(), atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("outputs", "error", "message"),
    [
        ([1.0, 2.0], TypeError, "outputs must be a tensor"),
        (tensor([1.0]), ValueError, "a finite number for each of 2 maps"),
        (tensor([1.0, torch.nan]), ValueError, "a finite number for each of 2 maps"),
    ],
)
def test_wrong_outputs(outputs, error, message):
    with pytest.raises(error, match=message):
        completeness_error(torch.ones(2, 1, 4, 4), outputs)
