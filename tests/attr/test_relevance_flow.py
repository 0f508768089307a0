"""Relevance below each layer: what the method itself gives of the layers from that one up, and the formulas too."""

from functools import partial

import oracle
import pytest
from methods import implemented
from oracle import Dense, attention_and_gradient
from torch.testing import assert_close

from captum_gmar import (
    AttentionEvidence,
    AttentionGradCAM,
    AttentionRollout,
    GMARAttribution,
    GMARPlusPlus,
    GradientRollout,
    GradSAM,
    LeGrad,
    RawAttention,
)
from captum_gmar.engine.kernels import workspace

TARGETS = [3, 0, 9, 1]
FOLLOWED = {
    "GMAR": (GMARAttribution, lambda d, **start: oracle.gmar(d.attention, d.gradient, "l1", **start)),
    "rollout": (
        partial(AttentionRollout, head_fusion="max", residual=0.5),
        partial(oracle.attention_rollout, head_fusion="max", residual=0.5),
    ),
    "gradient rollout": (GradientRollout, oracle.gradient_rollout),
    "gradient rollout, GMAR's heads": (
        partial(GradientRollout, head_fusion="gmar", norm="l2"),
        partial(oracle.gradient_rollout, norm="l2"),
    ),
    "GMAR++": (GMARPlusPlus, oracle.gmar_plus_plus),
}


@pytest.mark.parametrize("name", FOLLOWED)
def test_oracle(name, vit, images):
    make, formula = FOLLOWED[name]
    flow = make(vit).relevance_flow(images, TARGETS)
    dense = Dense(*attention_and_gradient(vit, images, TARGETS))
    assert flow.layers == (2, 1, 0)
    for index, layer in enumerate(flow.layers):
        row = formula(dense, start_layer=layer)[:, 0]  # (N, T), from the CLS token
        assert_close(flow.relevance[:, index].flatten(1).double(), row[:, 1:], rtol=1e-4, atol=1e-7)
        assert_close(flow.prefix_share[:, index].double(), row[:, 0] / row.sum(1), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("block_elements", [None, 1])
@pytest.mark.parametrize("internal_batch_size", [None, 3])
@pytest.mark.parametrize("make", [*(make for make, _ in FOLLOWED.values()), RawAttention, AttentionGradCAM])
def test_the_last_is_the_relevance(make, internal_batch_size, block_elements, vit, images, monkeypatch):
    if block_elements:
        monkeypatch.setitem(workspace.BLOCK_ELEMENTS, "cpu", block_elements)  # one example at a time
    method = implemented(make(vit), "blocks") if block_elements else make(vit)
    flow = method.relevance_flow(images, TARGETS, internal_batch_size=internal_batch_size)
    expected = method.relevance(images, TARGETS, internal_batch_size=internal_batch_size)
    assert_close(flow.relevance[:, -1], expected, rtol=0, atol=0)
    assert flow.relevance.shape == (4, len(flow.layers), 4, 4)


def test_start_layer_and_contrast(vit, images):
    options = {"target": 3, "contrast": 5}
    whole = GradientRollout(vit).relevance_flow(images, **options)
    late = GradientRollout(vit, start_layer=1).relevance_flow(images, **options)
    assert late.layers == (2, 1)
    assert_close(late.relevance, whole.relevance[:, :2], rtol=0, atol=0)
    assert GradientRollout(vit, start_layer=-2).relevance_flow(images, **options).layers == (-1, -2)


def test_relevance_begins_at_a_patch(vit, images):
    flow = GMARAttribution(vit, tokens=(1, 2)).relevance_flow(images, 3)
    assert (flow.relevance[:, 0].flatten(1).argmax(1) == 6).all()  # half stays there by the residual
    assert (flow.prefix_share[:, 0] < 0.5).all()


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (GradSAM, "Grad-SAM"),
        (LeGrad, "LeGrad"),
        (AttentionEvidence, "Attention evidence"),
        (partial(GMARAttribution, recursion="forward"), "GMAR"),
        (partial(AttentionRollout, recursion="additive"), "Attention rollout"),
    ],
)
def test_methods_that_hand_nothing_down(make, name, vit, images):
    with pytest.raises(ValueError, match=rf"from the last layer to the first, but got {name} as it is set\. Use GMAR"):
        make(vit).relevance_flow(images, 3)
