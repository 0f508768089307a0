"""Order of heads by importance, by hand."""

import pytest
import torch

from captum_gmar.ablation import ranked_heads
from captum_gmar.ablation.ranking import group_by_layer

IMPORTANCE = torch.tensor([[0.3, 0.2, 0.5], [0.9, 0.1, 0.0]])


def test_over_all_layers():
    assert ranked_heads(IMPORTANCE) == [(1, 2), (1, 1), (0, 1), (0, 0), (0, 2), (1, 0)]


def test_within_layers():
    expected = [(1, 2), (0, 1), (1, 1), (0, 0), (0, 2), (1, 0)]
    assert ranked_heads(IMPORTANCE, within_layers=True) == expected


@pytest.mark.parametrize("within_layers", [False, True])
def test_ties_stay_in_place(within_layers):
    found = ranked_heads(torch.ones(2, 2), within_layers=within_layers)
    expected = [(0, 0), (1, 0), (0, 1), (1, 1)] if within_layers else [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert found == expected


def test_heads_are_grouped_in_the_order_of_layers():
    assert group_by_layer([(1, 2), (0, 1), (1, 0)]) == {0: [1], 1: [0, 2]}


def test_wrong_importance():
    with pytest.raises(TypeError, match=r"importance must be a tensor \(layers, heads\), but got list"):
        ranked_heads([[1.0]])
    for wrong in (torch.ones(23, 3, 2), torch.tensor([[torch.nan]]), torch.zeros(0, 3)):
        with pytest.raises(ValueError, match=r"importance must be finite of shape \(layers, heads\), but got"):
            ranked_heads(wrong)
