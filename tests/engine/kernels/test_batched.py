"""Layers that are read together, once the way back is over, against the formulas in float64 and against blocks."""

import pytest
import torch
from families import FAMILIES, make
from methods import METHODS, implemented
from torch.testing import assert_close

from captum_gmar import AttentionRollout, GMARAttribution
from captum_gmar.attr.methods import get_method
from captum_gmar.engine.attention.backward import BackwardPass
from captum_gmar.engine.kernels import batched
from captum_gmar.engine.kernels.reduction import Reduction
from engine.kernels.test_dispatch import MATRICES, NORMS, dense, layer_gradient

KINDS = [name for name in FAMILIES if not name.startswith("timm ")]


@pytest.fixture
def batches(monkeypatch):
    """The numbers of layers that each backward pass read together."""
    numbers, read = [], BackwardPass._read_deferred

    def counted(backward_pass, layers):
        numbers.append(len(layers))
        return read(backward_pass, layers)

    monkeypatch.setattr(BackwardPass, "_read_deferred", counted)
    return numbers


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("norm", [None, *NORMS])
@pytest.mark.parametrize("matrix", [None, *MATRICES])
def test_the_dense_numbers(matrix, norm, masked):
    layer, row = layer_gradient(masked=masked)
    other = layer._replace(query=layer.key, key=layer.query, mask=None)
    reduction = Reduction(None if matrix is None else row, matrix, norm)
    for of_layer, read in zip((layer, other), batched.readers([layer, other]), strict=True):
        assert_close(read(reduction), dense(of_layer, reduction))


def test_a_query_that_may_look_nowhere_and_an_additive_mask():
    layer, row = layer_gradient(masked=True)
    layer.mask[3] = False
    added = layer._replace(mask=torch.zeros(layer.mask.shape).masked_fill(~layer.mask, -torch.inf).double())
    for read in batched.readers([layer, added]):
        assert_close(read(Reduction(row, "attention")), dense(layer, Reduction(row, "attention")))


def test_layers_that_are_not_alike():
    (layer, row), (larger, _) = layer_gradient(), layer_gradient(dim=16)
    for of_layer, read in zip((layer, larger), batched.readers([layer, larger]), strict=True):
        assert_close(read(Reduction(row, "positive", "l1")), dense(of_layer, Reduction(row, "positive", "l1")))


@pytest.mark.parametrize("family", KINDS)
def test_every_family(family, batches):
    model, forward_func = make(family)
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)).double()
    options = [("gmar-l1", {}), ("attention-evidence", {}), ("gradient-rollout", {"start_layer": -1})]
    for name, changes in options:
        method = get_method(name, model.double(), forward_func=forward_func, **changes)
        found = implemented(method, "batched").relevance(images, 3)
        assert [number > 0 for number in batches] == [True]
        assert_close(found, implemented(method, "blocks").relevance(images, 3))
        batches.clear()


@pytest.mark.parametrize("name", [name for name in METHODS if METHODS[name].expected is not None])
def test_half_precision(name, vit, images):
    expected = implemented(METHODS[name].make(vit), "blocks").relevance(images, 3).flatten(1)
    found = implemented(METHODS[name].make(vit.bfloat16()), "batched").relevance(images.bfloat16(), 3).flatten(1)
    assert found.dtype == torch.float32
    pairs = torch.stack([expected, found], 1)
    assert min(float(torch.corrcoef(pair)[0, 1]) for pair in pairs) > 0.98


def test_nothing_is_kept(vit, images):
    from captum_gmar.engine.attention.forward import ForwardPass

    kept = []
    original = ForwardPass.forget

    def forget(forward_pass):
        original(forward_pass)
        kept.extend(forward_pass.taps)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ForwardPass, "forget", forget)
        implemented(GMARAttribution(vit), "batched").relevance(images, 3)
        implemented(AttentionRollout(vit), "batched").relevance(images)
    assert len(kept) > 2
    assert all(tap.layer is None and tap.value is None and tap.edge is None for tap in kept)


def test_a_layer_without_gradient_is_told(vit, images):
    def forward_func(inputs):
        outputs = vit(inputs, output_hidden_states=True)
        return vit.classifier(outputs.hidden_states[0][:, 0])  # of no layer

    with pytest.raises(RuntimeError, match="got no gradient"):
        implemented(GMARAttribution(vit, forward_func=forward_func), "batched").relevance(images, 3)
