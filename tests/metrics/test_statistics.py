"""Rank correlation against its definition, and intervals."""

import math

import pytest
import torch
from torch import tensor
from torch.testing import assert_close

from captum_gmar.metrics._statistics import margin, spearman
from metrics.by_definition import slow_spearman


@pytest.mark.parametrize("levels", [3, 10, 1000])
def test_spearman_against_its_definition(levels):
    generator = torch.Generator().manual_seed(levels)
    a, b = (torch.randint(levels, (20, 12), generator=generator).double() for _ in range(2))
    expected = [slow_spearman(*rows) for rows in zip(a.tolist(), b.tolist(), strict=True)]
    assert_close(spearman(a, b), tensor(expected, dtype=torch.float64))


def test_spearman_at_its_ends():
    values = torch.randn(100, 77, generator=torch.Generator().manual_seed(0))
    assert torch.equal(spearman(values, values.exp()), torch.ones(100))  # exactly
    assert_close(spearman(values, -values), -torch.ones(100))
    flat = torch.ones(100, 77)
    assert torch.equal(spearman(values, flat), torch.zeros(100))
    assert torch.equal(spearman(flat, 2 * flat), torch.ones(100))


def test_a_margin_by_hand():
    values = tensor([[0.0, 1.0, 2.0, 3.0], [5.0, 5.0, 5.0, 5.0]])  # of variance 5 / 3
    assert_close(margin(values), tensor([1.96 * math.sqrt(5 / 3 / 4), 0]))
