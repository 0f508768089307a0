"""GMAR's rule against cases worked by hand; and identities."""

import pytest
import torch
from torch import tensor
from torch.testing import assert_close

from captum_gmar.rules import GMAR, Block, add_residual, head_weights

# Two tokens, two heads.
ATTENTION = tensor([[[[0.5, 0.5], [0.25, 0.75]], [[1.0, 0.0], [0.5, 0.5]]]])
GRADIENT = tensor([[[[3.0, -4.0], [0.0, 5.0]], [[1.0, 1.0], [-1.0, 1.0]]]])
CLS = tensor([[1.0, 0.0]])


def layer(attention=ATTENTION, gradient=GRADIENT):
    return [Block(slice(0, attention.shape[-2]), attention, gradient)]


def test_l1_by_hand():
    # s = (3 + 4 + 5, 4) = (12, 4); w = (3/4, 1/4).
    # CLS row of the fused attention: 3/4 (1/2, 1/2) + 1/4 (1, 0) = (5/8, 3/8). With the identity: (13/16, 3/16).
    step = GMAR("l1")(CLS, layer())
    assert_close(step.importance, tensor([[12.0, 4.0]]))
    assert_close(step.relevance, tensor([[13 / 16, 3 / 16]]))


def test_l2_by_hand():
    # s = (sqrt 50, 2); without residual the row is w (1/2, 1/2) + (1 - w) (1, 0) = (1 - w/2, w/2).
    step = GMAR("l2", residual=0)(CLS, layer())
    weight = 50**0.5 / (50**0.5 + 2)
    assert_close(step.importance, tensor([[50**0.5, 2.0]]))
    assert_close(step.relevance, tensor([[1 - weight / 2, weight / 2]]))


def test_two_layers_by_hand():
    # (13/16, 3/16) once more, through the fused rows (5/8, 3/8) and 3/4 (1/4, 3/4) + 1/4 (1/2, 1/2) = (5/16, 11/16).
    once = GMAR("l1")(CLS, layer()).relevance
    twice = GMAR("l1")(once, layer()).relevance
    through = (13 / 16 * 5 / 8 + 3 / 16 * 5 / 16, 13 / 16 * 3 / 8 + 3 / 16 * 11 / 16)
    assert_close(twice, tensor([[(13 / 16 + through[0]) / 2, (3 / 16 + through[1]) / 2]]))


def random_layer(heads: int, tokens: int = 7, examples: int = 3):
    generator = torch.Generator().manual_seed(0)
    shape = (examples, heads, tokens, tokens)
    attention = torch.rand(shape, generator=generator, dtype=torch.float64).softmax(-1)
    return attention, torch.randn(shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("norm", ["l1", "l2"])
def test_one_head_is_rollout(norm):
    attention, gradient = random_layer(heads=1)
    relevance = torch.rand(3, 7, dtype=torch.float64)
    rollout = (relevance[:, None] @ (attention[:, 0] + torch.eye(7)) / 2)[:, 0]
    assert_close(GMAR(norm)(relevance, layer(attention, gradient)).relevance, rollout)


def test_equal_importance_is_the_mean_over_heads():
    attention, gradient = random_layer(heads=4)
    gradient = gradient[:, :1] * tensor([1.0, -1.0, 1.0, -1.0])[:, None, None]
    relevance = torch.rand(3, 7, dtype=torch.float64)
    rollout = (relevance[:, None] @ (attention.mean(1) + torch.eye(7)) / 2)[:, 0]
    assert_close(GMAR("l2")(relevance, layer(attention, gradient)).relevance, rollout)


@pytest.mark.parametrize("norm", ["l1", "l2"])
@pytest.mark.parametrize("residual", [0, 0.5, 1])
def test_relevance_is_conserved(norm, residual):
    relevance = torch.rand(3, 7, dtype=torch.float64)
    step = GMAR(norm, residual)(relevance, layer(*random_layer(heads=4)))
    assert_close(step.relevance.sum(-1), relevance.sum(-1))


@pytest.mark.parametrize("norm", ["l1", "l2"])
def test_blocks_of_rows_sum_up_to_the_layer(norm):
    attention, gradient = random_layer(heads=2)
    relevance = torch.rand(3, 7, dtype=torch.float64)
    rows = [slice(0, 3), slice(3, 6), slice(6, 7)]
    blocks = [Block(r, attention[:, :, r], gradient[:, :, r]) for r in rows]
    whole, parts = GMAR(norm)(relevance, layer(attention, gradient)), GMAR(norm)(relevance, blocks)
    assert_close(parts.relevance, whole.relevance)
    assert_close(parts.importance, whole.importance)


@pytest.mark.parametrize("norm", ["l1", "l2"])
def test_the_scale_of_the_gradient_does_not_matter(norm):
    attention, gradient = random_layer(heads=3)
    relevance = torch.rand(3, 7, dtype=torch.float64)
    steps = [GMAR(norm)(relevance, layer(attention, scale * gradient)) for scale in (1, 1e-12)]
    assert_close(steps[0].relevance, steps[1].relevance)


def test_heads_weigh_the_same_where_all_gradients_are_zero():
    importance = tensor([[0.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 3.0]])
    assert_close(head_weights(importance), tensor([[0.25, 0.25, 0.25, 0.25], [0.0, 0.25, 0.0, 0.75]]))


def test_residual_is_normalised():
    assert_close(add_residual(tensor([[0.0, 1.0]]), tensor([[1.0, 0.0]]), 3.0), tensor([[0.75, 0.25]]))


def test_wrong_options():
    with pytest.raises(ValueError, match=r"norm must be one of \['l1', 'l2'\]. Got 'l3' instead."):
        GMAR("l3")
    for residual in (-1, float("nan"), float("inf"), "1"):
        with pytest.raises(ValueError, match=r"residual must be a finite number, zero or more\. Got"):
            GMAR(residual=residual)
