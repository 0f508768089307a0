"""The sums of exponentials that torch's own attention keeps, against their formula in float64."""

import pytest
import torch
import torch.nn.functional as F

from captum_gmar.engine.kernels import logsumexp as module
from captum_gmar.engine.kernels.logsumexp import attention_and_log_sums, log_sums


@pytest.fixture
def tensors():
    random = torch.Generator().manual_seed(0)
    return [torch.randn(2, 50, 3, 16, generator=random).transpose(1, 2) for _ in range(3)]


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("scale", [None, 0.7])
def test_sums_of_each_query(tensors, precision, scale):
    query, key, value = (tensor.to(precision) for tensor in tensors)
    sums = log_sums(F.scaled_dot_product_attention(query.requires_grad_(), key, value, scale=scale), query)
    exact = (query.double() @ key.double().mT * (0.25 if scale is None else scale)).logsumexp(-1)
    assert sums.is_contiguous()
    torch.testing.assert_close(sums.double(), exact, rtol=1e-5, atol=1e-4)


def test_none_where_torch_keeps_none(tensors):
    query, key, value = tensors
    assert log_sums(F.scaled_dot_product_attention(query, key, value), query) is None
    weights = (query.requires_grad_() @ key.mT).softmax(-1)
    assert log_sums(weights @ value, query) is None


def test_not_taken_where_they_are_not_what_they_are_taken_for(tensors, monkeypatch):
    query, key, value = tensors
    attended = F.scaled_dot_product_attention(query.requires_grad_(), key, value)
    monkeypatch.setattr(module, "_kept", lambda attended, query: torch.zeros(query.shape[:-1]))
    module._is_right.cache_clear()
    try:
        assert log_sums(attended, query) is None
    finally:
        module._is_right.cache_clear()


def test_attention_is_torch_s_own_without_graph(tensors):
    query, key, value = tensors
    with torch.no_grad():
        attended, sums = attention_and_log_sums(query, key, value, None, None)
    assert sums is None  # of the CPU, where they are read in blocks
    torch.testing.assert_close(attended, F.scaled_dot_product_attention(query, key, value), rtol=0, atol=0)
    assert attended.grad_fn is None
