"""The rules against cases worked by hand; and identities."""

from typing import NamedTuple

import pytest
import torch
from torch import Tensor, tensor
from torch.testing import assert_close

from captum_gmar.attr.rules import (
    GMARPlusPlusRule,
    GMARRule,
    GradientRolloutRule,
    GradSAMRule,
    HeadImportance,
    LeGradRule,
    RolloutSweep,
)
from captum_gmar.engine.kernels.reduction import HeadSums
from captum_gmar.engine.rule import head_weights

# Two tokens, two heads.
ATTENTION = tensor([[[[0.5, 0.5], [0.25, 0.75]], [[1.0, 0.0], [0.5, 0.5]]]])
GRADIENT = tensor([[[[3.0, -4.0], [0.0, 5.0]], [[1.0, 1.0], [-1.0, 1.0]]]])
CLS = tensor([[1.0, 0.0]])


class Block(NamedTuple):
    rows: slice
    attention: Tensor
    gradient: Tensor

    @property
    def spare(self):
        return torch.empty_like(self.attention)


class Layer(list):
    """Blocks of all heads, which can be gone over head by head."""

    def heads_apart(self):
        for head in range(self[0].attention.shape[1]):
            yield Layer(Block(b.rows, b.attention[:, [head]], b.gradient[:, [head]]) for b in self)

    def keep_first(self, queries):
        self[:] = [Block(slice(0, queries), b.attention[:, :, :queries], b.gradient[:, :, :queries]) for b in self]


def layer(attention=ATTENTION, gradient=GRADIENT):
    return Layer([Block(slice(0, attention.shape[-2]), attention, gradient)])


def test_l1_by_hand():
    # s = (3 + 4 + 5, 4) = (12, 4); w = (3/4, 1/4).
    # CLS row of the fused attention: 3/4 (1/2, 1/2) + 1/4 (1, 0) = (5/8, 3/8). With the identity: (13/16, 3/16).
    step = GMARRule("l1")(CLS, layer())
    assert_close(step.importance, tensor([[12.0, 4.0]]))
    assert_close(step.relevance, tensor([[13 / 16, 3 / 16]]))


def test_l2_by_hand():
    # s = (sqrt 50, 2); without residual the row is w (1/2, 1/2) + (1 - w) (1, 0) = (1 - w/2, w/2).
    step = GMARRule("l2", residual=0)(CLS, layer())
    weight = 50**0.5 / (50**0.5 + 2)
    assert_close(step.importance, tensor([[50**0.5, 2.0]]))
    assert_close(step.relevance, tensor([[1 - weight / 2, weight / 2]]))


def random_layer(heads, tokens=7, examples=3):
    generator = torch.Generator().manual_seed(0)
    shape = (examples, heads, tokens, tokens)
    attention = torch.rand(shape, generator=generator, dtype=torch.float64).softmax(-1)
    return attention, torch.randn(shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("norm", ["l1", "l2"])
def test_one_head_is_rollout(norm):
    attention, gradient = random_layer(heads=1)
    relevance = torch.rand(3, 7, dtype=torch.float64)
    rollout = (relevance[:, None] @ (attention[:, 0] + torch.eye(7)) / 2)[:, 0]
    assert_close(GMARRule(norm)(relevance, layer(attention, gradient)).relevance, rollout)


def test_equal_importance_is_the_mean_over_heads():
    attention, gradient = random_layer(heads=4)
    gradient = gradient[:, :1] * tensor([1.0, -1.0, 1.0, -1.0])[:, None, None]
    relevance = torch.rand(3, 7, dtype=torch.float64)
    rollout = (relevance[:, None] @ (attention.mean(1) + torch.eye(7)) / 2)[:, 0]
    assert_close(GMARRule("l2")(relevance, layer(attention, gradient)).relevance, rollout)


@pytest.mark.parametrize(
    "rule",
    [
        *(GMARRule(norm, residual) for norm in ("l1", "l2") for residual in (0, 0.5, 1)),
        *map(GMARPlusPlusRule, (0.3, 1)),
    ],
)
def test_relevance_is_conserved(rule):
    relevance = torch.rand(3, 7, dtype=torch.float64)
    step = rule(relevance, layer(*random_layer(heads=4)))
    assert_close(step.relevance.sum(-1), relevance.sum(-1))


@pytest.mark.parametrize("norm", ["l1", "l2"])
def test_the_scale_of_the_gradient_does_not_matter(norm):
    attention, gradient = random_layer(heads=3)
    relevance = torch.rand(3, 7, dtype=torch.float64)
    steps = [GMARRule(norm)(relevance, layer(attention, scale * gradient)) for scale in (1, 1e-12)]
    assert_close(steps[0].relevance, steps[1].relevance)


def test_heads_weigh_the_same_where_all_gradients_are_zero():
    importance = tensor([[0.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 3.0]])
    assert_close(head_weights(importance), tensor([[0.25, 0.25, 0.25, 0.25], [0.0, 0.25, 0.0, 0.75]]))


# (A ⊙ G)^+ of the layer above: rows (3/2, 0), (0, 15/4) in the first head and (1, 0), (0, 1/2) in the second.


def test_gradient_rollout_by_hand():
    # CLS row of the mean: ((3/2 + 1) / 2, 0), and r itself.
    assert_close(GradientRolloutRule()(CLS, layer()).relevance, tensor([[1 + 5 / 4, 0.0]]))
    # GMAR's L1 weights are 3/4 and 1/4: 9/8 + 1/4, and half of r.
    step = GradientRolloutRule("gmar", residual=0.5)(CLS, layer())
    assert_close(step.relevance, tensor([[0.5 + 11 / 8, 0.0]]))
    assert_close(step.importance, tensor([[12.0, 4.0]]))


def test_gmar_plus_plus_by_hand():
    # s = (3 + 5, 1 + 1 + 1), w = (8/11, 3/11). From (1/2, 1/2): both rows stay on the diagonal, so r does as well.
    step = GMARPlusPlusRule()(tensor([[0.5, 0.5]]), layer())
    assert_close(step.importance, tensor([[8.0, 3.0]]))
    assert_close(step.relevance, tensor([[0.5, 0.5]]))
    # The same where the engine adds the heads.
    heads = HeadSums(norms=tensor([[8.0, 3.0]]))
    fused = (tensor([8 / 11, 3 / 11]).view(1, 2, 1, 1) * (ATTENTION * GRADIENT).clamp(min=0)).sum(1)
    given = CLS, lambda reduction: heads, lambda weights: [(slice(0, 1), [(slice(0, 2), fused)])]
    assert_close(GMARPlusPlusRule().take_fused(*given), GMARPlusPlusRule()(CLS, layer()))
    # With a gradient of ones the row of A itself is fused: 8/16 of each head.
    step = GMARPlusPlusRule(residual=0.5)(CLS, layer(gradient=torch.ones_like(GRADIENT)))
    assert_close(step.relevance, tensor([[(0.75 + 0.5) / 1.5, 0.25 / 1.5]]))


def test_layer_means_by_hand():
    # Column sums over heads and rows, by 2 heads and 2 rows.
    nothing = tensor([[0.0, 0.0]])
    assert_close(GradSAMRule()(nothing, layer()).relevance, tensor([[2.5 / 4, 4.25 / 4]]))
    assert_close(LeGradRule()(nothing, layer()).relevance, tensor([[4 / 4, 7 / 4]]))
    assert_close(LeGradRule()(CLS, layer()).relevance, tensor([[1 + 4 / 4, 7 / 4]]))


# Two layers: all attention to the first token, and each token to the other.
FIRST = tensor([[[[1.0, 0.0], [1.0, 0.0]]]])
SWAP = tensor([[[[0.0, 1.0], [1.0, 0.0]]]])


@pytest.mark.parametrize(
    ("recursion", "expected"),
    [
        # (1, 0) through (1/2, 1/2; 1/2, 1/2) of the second layer, then (1, 0; 1/2, 1/2) of the first.
        ("rollout", [0.75, 0.25]),
        # (1, 0) stays in the first layer and is halved in the second.
        ("forward", [0.5, 0.5]),
        # (1, 0) + (1, 0) = (2, 0), then (0, 2) + (1, 0).
        ("additive", [1.0, 2.0]),
    ],
)
def test_recursions_by_hand(recursion, expected):
    layers = [layer(FIRST, FIRST), layer(SWAP, SWAP)]
    assert_close(RolloutSweep(recursion=recursion)(CLS, layers), tensor([expected]))


def test_head_fusion_by_hand():
    # CLS rows (1/2, 1/2) and (1, 0): max (1, 1/2), min (1/2, 0); with the identity and normalised.
    assert_close(RolloutSweep(head_fusion="max")(CLS, [layer()]), tensor([[2 / 2.5, 0.5 / 2.5]]))
    assert_close(RolloutSweep(head_fusion="min")(CLS, [layer()]), tensor([[1.0, 0.0]]))
    weighted = RolloutSweep(residual=0)(CLS, [layer()], tensor([[[3.0, 1.0]]]))
    assert_close(weighted, tensor([[3 / 8 + 1 / 4, 3 / 8]]))


def test_a_row_of_zeros_passes_nothing_on():
    step = GMARPlusPlusRule(residual=0)(CLS, layer(gradient=-torch.ones_like(GRADIENT)))
    assert_close(step.relevance, tensor([[0.0, 0.0]]))


def test_wrong_options():
    for make in (GMARRule, HeadImportance, lambda norm: GradientRolloutRule(norm=norm)):
        with pytest.raises(ValueError, match=r"norm must be one of \['l1', 'l2'\], but got 'l3'."):
            make("l3")
    for make in (GMARRule, GradientRolloutRule, GMARPlusPlusRule, RolloutSweep):
        for residual in (-1, float("nan"), float("inf"), "1"):
            with pytest.raises(ValueError, match=r"residual must be a finite number, zero or more, but got"):
                make(residual=residual)
    with pytest.raises(ValueError, match=r"recursion must be one of \['rollout', 'forward', 'additive'\]"):
        RolloutSweep(recursion="back")
    with pytest.raises(ValueError, match=r"head_fusion must be one of \['mean', 'max', 'min'\], but got 'sum'."):
        RolloutSweep(head_fusion="sum")
    with pytest.raises(ValueError, match=r"head_fusion must be one of \['mean', 'gmar'\], but got 'max'."):
        GradientRolloutRule("max")
