"""Images, maps and a classifier for the tests of metrics."""

import pytest
import torch
from torch import nn


@pytest.fixture
def classifier():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.GELU(), nn.Flatten(), nn.Linear(8 * 8 * 12, 5)).eval()


@pytest.fixture
def photos():
    return torch.randn(3, 3, 8, 12, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def attributions():
    return torch.randn(3, 3, 8, 12, generator=torch.Generator().manual_seed(2))
