"""Layers watched beside torch's own backward against layers in blocks, in models of every kind."""

import pytest
import torch
from families import FAMILIES, make
from torch.testing import assert_close

from captum_gmar.attr.catalogue import OURS
from captum_gmar.attr.methods import methods
from captum_gmar.attr.token_gradients import TokenAttribution
from captum_gmar.engine.attention import backward, forward
from captum_gmar.engine.kernels import dispatch
from captum_gmar.engine.kernels.blocks import read_in_blocks
from captum_gmar.engine.kernels.dispatch import forced

IN_THE_PASS = [
    name
    for name in OURS
    if not issubclass(getattr(kind := methods()[name], "func", kind), TokenAttribution)
    and not name.startswith(("rollout", "raw", "published", "value"))
]
KINDS = [name for name in FAMILIES if not name.startswith("timm ")]


def relevance(name, family, fused):
    model, forward_func = make(family)
    images = torch.randn(2, 3, 32, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    method = methods()[name](model.double(), forward_func=forward_func)
    with forced(fused):
        return method.relevance_of_targets(images, [3, 1], contrast=2)


@pytest.mark.parametrize("name", IN_THE_PASS)
def test_every_method(name):
    assert_close(relevance(name, "ViT", fused=True), relevance(name, "ViT", fused=False))


@pytest.mark.parametrize("name", ["gmar-l2", "attention-evidence", "gradient-rollout"])
@pytest.mark.parametrize("family", KINDS)
def test_every_family(name, family):
    assert_close(relevance(name, family, fused=True), relevance(name, family, fused=False))


@pytest.mark.parametrize(("dtype", "correlation"), [(torch.bfloat16, 0.99), (torch.float16, 0.999)])
@pytest.mark.parametrize("name", ["gmar-l2", "attention-evidence", "rollout"])
def test_half_precision(name, dtype, correlation, vit, images):
    expected = methods()[name](vit).relevance(images, 3).flatten(1)
    with forced(True):
        found = methods()[name](vit.to(dtype)).relevance(images.to(dtype), 3).flatten(1)
    pairs = torch.stack([expected, found], 1)
    assert min(float(torch.corrcoef(pair)[0, 1]) for pair in pairs) > correlation


def test_the_flow_of_relevance(vit, images):
    method = methods()["gmar-l1"](vit.double())
    with forced(True):
        found = method.relevance_flow(images.double(), 3)
    assert_close(found, method.relevance_flow(images.double(), 3))


@pytest.mark.parametrize("name", ["gmar-l1", "gmar-l2", "gmar++", "gradient-rollout"])
def test_layers_that_a_kernel_reads(name, monkeypatch):
    """Blocks stand in for the kernel, which is tested by itself."""
    readings = []

    def read(layer, reading):
        readings.append(reading)
        return read_in_blocks(layer, reading)

    expected = relevance(name, "ViT", fused=False)
    for module in (forward, backward):
        monkeypatch.setattr(module, "is_readable", lambda layer, reading: True)
    monkeypatch.setitem(dispatch.WAYS, "kernel", (lambda layer, reading: True, read))
    assert_close(relevance(name, "ViT", fused=True), expected)
    assert {reading.matrix for reading in readings} <= {"attention", "positive", None}
    assert readings
