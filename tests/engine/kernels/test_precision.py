"""Products and sums of half precision, and blocks that stay in it, against float64 of the same numbers."""

import pytest
import torch
from torch.testing import assert_close

from captum_gmar.engine.kernels import blocks
from captum_gmar.engine.kernels.precision import block_dtype, row_products, wide_product
from captum_gmar.engine.kernels.reduction import LayerGradient, Reduction, positive_sum

HALVES = pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])


def drawn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@HALVES
def test_products_are_those_of_the_numbers(half):
    first, second = drawn(2, 3, 50).to(half), drawn(2, 50, 7, seed=1).to(half)
    assert_close(wide_product(first, second).double(), first.double() @ second.double(), rtol=1e-5, atol=1e-5)


@HALVES
def test_rows_keep_their_digits(half):
    """Two numbers of half precision have those that a sum needs."""
    rows, matrices = drawn(2, 1, 50).float().abs(), drawn(2, 50, 7, seed=1).to(half)
    exact = rows.double() @ matrices.double()
    assert_close(row_products(rows, matrices).double(), exact, rtol=0, atol=50 * torch.finfo(half).eps ** 2)
    rounded = rows.to(half).double() @ matrices.double()
    assert (rounded - exact).abs().max() > 100 * torch.finfo(half).eps ** 2


def test_which_blocks_stay_in_half_precision():
    kinds = [(torch.bfloat16, "meta"), (torch.float16, "meta"), (torch.float64, "meta"), (torch.bfloat16, "cpu")]
    kept = [block_dtype(torch.empty(1, dtype=dtype, device=device)) for dtype, device in kinds]
    assert kept == [torch.bfloat16, torch.float32, torch.float64, torch.float32]


@pytest.mark.parametrize(
    ("matrix", "norm", "totals"),
    [
        ("attention", "l1", None),
        ("positive", None, None),
        ("positive", "l1", None),
        ("positive gradient", "l2", None),
        (None, "positive", "positive"),
    ],
)
@pytest.mark.parametrize("is_large", [False, True])
def test_blocks_in_half_precision(monkeypatch, is_large, matrix, norm, totals):
    """A number is rounded four times by 2⁻⁹ at most: as a score, a probability, a gradient and their product."""
    monkeypatch.setattr(blocks, "block_dtype", lambda tensor: tensor.dtype)
    layer = LayerGradient(*(t.bfloat16() for t in drawn(4, 2, 3, 60, 16)), None, 0.3)
    if is_large:
        monkeypatch.setattr(blocks, "LARGE_ELEMENTS", 0)
        scores = layer.query.float() @ layer.key.float().mT * 0.3
        layer = layer._replace(lse=scores.logsumexp(-1))
    reduction = Reduction(drawn(2, 60).abs().float(), matrix, norm, totals)
    found = blocks.read_in_blocks(layer, reduction)
    exact = blocks.read_in_blocks(
        LayerGradient(*(t.double() for t in layer[:4]), None, 0.3), reduction._replace(row=reduction.row.double())
    )
    for half, wide in zip(found, exact, strict=True):
        assert half.dtype == (torch.float32 if half.numel() else wide.dtype)
        if wide.numel():
            assert float((half - wide).abs().max() / wide.abs().max()) < 4 * 2**-9


@pytest.mark.parametrize("is_large", [False, True])
def test_weighted_positive_parts_are_those_of_the_formula(monkeypatch, is_large):
    """Of scores far from zero, most attention is on one key."""
    monkeypatch.setattr(blocks, "is_large", lambda layer: is_large)
    query, key, value, grad_output = drawn(4, 2, 3, 30, 8)
    query[0] *= 30
    row, weights = drawn(2, 30).abs(), drawn(2, 3, seed=1).abs()
    scores, gradient = query @ key.mT * 0.3, grad_output @ value.mT
    exact = scores.softmax(-1) * gradient.clamp(min=0)
    layer = LayerGradient(query, key, value, grad_output, None, 0.3, scores.logsumexp(-1))
    read = blocks.read_in_blocks(layer, Reduction(row, "positive")) if is_large else blocks._read_positive(layer, row)
    assert_close(read.rows, torch.einsum("ni,nhij->nhj", row, exact))
    importance = blocks.read_in_blocks(layer, Reduction(norm="positive")).norms
    assert_close(importance, gradient.clamp(min=0).sum((-2, -1)))
    fused = torch.cat([torch.cat([rows for _, rows in of], 1) for _, of in blocks.fused_positive(layer, weights)])
    assert_close(fused, torch.einsum("nh,nhij->nij", weights, exact))


def test_sum_of_the_positive_numbers():
    matrix = drawn(2, 3, 5, 7)
    for dim in (-2, (-2, -1)):
        assert_close(positive_sum(matrix, dim), matrix.clamp(min=0).sum(dim))
