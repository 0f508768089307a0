"""Layers read beside torch's own backward, or together after it, against layers in blocks, in models of every kind."""

import pytest
import torch
import torch.nn.functional as F
from families import FAMILIES, make
from methods import implemented
from torch.testing import assert_close

from captum_gmar import GMARPlusPlus
from captum_gmar.attr.catalogue import METHODS, OURS
from captum_gmar.attr.methods import get_method
from captum_gmar.attr.token_gradients import TokenAttribution
from captum_gmar.engine.attention import backward, forward
from captum_gmar.engine.kernels import blocks, dispatch, fused
from captum_gmar.engine.kernels.blocks import read_in_blocks
from captum_gmar.engine.kernels.fused import attention_and_log_sums, log_sums

IN_THE_PASS = [
    name
    for name in OURS
    if not issubclass(getattr(kind := METHODS[name].load(), "func", kind), TokenAttribution)
    and not name.startswith(("rollout", "raw", "published", "value"))
]
KINDS = [name for name in FAMILIES if not name.startswith("timm ")]


def relevance(name, family, implementation, **options):
    model, forward_func = make(family)
    images = torch.randn(2, 3, 32, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    method = get_method(name, model.double(), forward_func=forward_func, **options)
    return implemented(method, implementation).explain(images, [3, 1], contrast=2).relevance


@pytest.mark.parametrize("name", IN_THE_PASS)
def test_every_method(name):
    assert_close(relevance(name, "ViT", "fused"), relevance(name, "ViT", "blocks"))


@pytest.mark.parametrize(
    ("name", "options"),
    [("gmar-l2", {}), ("gmar-l1", {}), ("attention-evidence", {}), ("gradient-rollout", {"start_layer": -1})],
)
@pytest.mark.parametrize("family", KINDS)
def test_every_family(name, options, family):
    expected = relevance(name, family, "blocks", **options)
    for implementation in ("fused", "batched"):
        assert_close(relevance(name, family, implementation, **options), expected)


@pytest.mark.parametrize("name", ["gmar++", "gradient-rollout", "grad-sam"])
def test_large_layers(name, monkeypatch):
    expected, seen = relevance(name, "ViT", "blocks"), []
    for module in (blocks, backward):
        monkeypatch.setattr(module, "is_large", lambda layer: seen.append(layer.lse) or layer.lse is not None)
    assert_close(relevance(name, "ViT", "fused"), expected)
    assert seen
    assert all(sums is not None for sums in seen)


def test_flow_of_large_layers(vit, images, monkeypatch):
    method = implemented(GMARPlusPlus(vit), "fused")
    expected = method.relevance_flow(images, 3).relevance
    for module in (blocks, backward):
        monkeypatch.setattr(module, "is_large", lambda layer: True)
    assert_close(method.relevance_flow(images, 3).relevance, expected)


@pytest.mark.parametrize(("dtype", "correlation"), [(torch.bfloat16, 0.99), (torch.float16, 0.999)])
@pytest.mark.parametrize("name", ["gmar-l2", "attention-evidence", "rollout"])
def test_half_precision(name, dtype, correlation, vit, images):
    expected = get_method(name, vit).relevance(images, 3).flatten(1)
    found = implemented(get_method(name, vit.to(dtype)), "fused").relevance(images.to(dtype), 3).flatten(1)
    pairs = torch.stack([expected, found], 1)
    assert min(float(torch.corrcoef(pair)[0, 1]) for pair in pairs) > correlation


def test_the_flow_of_relevance(vit, images):
    method = get_method("gmar-l1", vit.double())
    found = implemented(method, "fused").relevance_flow(images.double(), 3)
    assert_close(found, implemented(method, "blocks").relevance_flow(images.double(), 3))


@pytest.mark.parametrize("name", ["gmar-l1", "gmar-l2", "gmar++", "gradient-rollout"])
def test_layers_that_a_kernel_reads(name, monkeypatch):
    """Blocks stand in for the kernel, which is tested by itself."""
    reductions = []

    def read(layer, reduction):
        reductions.append(reduction)
        return read_in_blocks(layer, reduction)

    expected = relevance(name, "ViT", "blocks")
    for module in (forward, backward):
        monkeypatch.setattr(module, "is_readable", lambda layer, reduction: True)
    monkeypatch.setitem(dispatch.IMPLEMENTATIONS, "kernel", (lambda layer, reduction: True, read))
    assert_close(relevance(name, "ViT", "fused"), expected)
    assert {reduction.matrix for reduction in reductions} <= {"attention", "positive", None}
    assert reductions


@pytest.fixture
def random_tensors():
    random = torch.Generator().manual_seed(0)
    return [torch.randn(2, 50, 3, 16, generator=random).transpose(1, 2) for _ in range(3)]


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("scale", [None, 0.7])
def test_sums_of_each_query(random_tensors, precision, scale):
    query, key, value = (tensor.to(precision) for tensor in random_tensors)
    sums = log_sums(F.scaled_dot_product_attention(query.requires_grad_(), key, value, scale=scale), query)
    exact = (query.double() @ key.double().mT * (0.25 if scale is None else scale)).logsumexp(-1)
    assert sums.is_contiguous()
    assert_close(sums.double(), exact, rtol=1e-5, atol=1e-4)


def test_none_where_torch_keeps_none(random_tensors):
    query, key, value = random_tensors
    assert log_sums(F.scaled_dot_product_attention(query, key, value), query) is None
    weights = (query.requires_grad_() @ key.mT).softmax(-1)
    assert log_sums(weights @ value, query) is None


def test_not_taken_where_they_are_not_what_they_are_taken_for(random_tensors, monkeypatch):
    query, key, value = random_tensors
    attended = F.scaled_dot_product_attention(query.requires_grad_(), key, value)
    monkeypatch.setattr(fused, "_saved_log_sums", lambda attended, query: torch.zeros(query.shape[:-1]))
    fused._is_right.cache_clear()
    try:
        assert log_sums(attended, query) is None
    finally:
        fused._is_right.cache_clear()


def test_attention_is_torch_s_own_without_graph(random_tensors):
    query, key, value = random_tensors
    with torch.no_grad():
        attended, sums = attention_and_log_sums(query, key, value, None, None)
    assert sums is None  # of the CPU, where they are read in blocks
    assert_close(attended, F.scaled_dot_product_attention(query, key, value), rtol=0, atol=0)
    assert attended.grad_fn is None
