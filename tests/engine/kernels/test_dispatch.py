"""Every way to read a layer against the dense matrices in float64."""

import pytest
import torch
from torch.testing import assert_close

from captum_gmar.engine.kernels.batched import readers
from captum_gmar.engine.kernels.dispatch import IMPLEMENTATIONS, LayerGradient, read_layer
from captum_gmar.engine.kernels.reduction import NOTHING, HeadSums, Reduction

MATRICES = ["attention", "product", "positive", "positive gradient"]
NORMS = ["l1", "l2"]


def layer_gradient(examples=2, heads=3, tokens=11, dim=8, dtype=torch.float64, masked=False):
    """A layer laid out as models do, and r (N, T)."""
    generator = torch.Generator().manual_seed(0)
    shape = (examples, tokens, heads, dim)
    drawn = [torch.randn(shape, generator=generator, dtype=torch.float64).transpose(1, 2) for _ in range(4)]
    mask = torch.rand(tokens, tokens, generator=generator) > 0.3 if masked else None
    row = torch.rand(examples, tokens, generator=generator, dtype=torch.float64)
    return LayerGradient(*(t.to(dtype) for t in drawn), mask, 0.3), row.to(torch.promote_types(dtype, torch.float32))


def dense(layer, reduction):
    """The answer by the formulas, in float64."""
    query, key, value, grad_output = (tensor.double() for tensor in layer[:4])
    key, value = (t.repeat_interleave(query.shape[1] // t.shape[1], 1) for t in (key, value))
    scores = query @ key.mT * layer.scale
    if layer.mask is not None:
        scores = scores.masked_fill(~layer.mask, -torch.inf) if layer.mask.dtype == torch.bool else scores + layer.mask
    a, g = scores.softmax(-1).nan_to_num(0), grad_output @ value.mT
    matrices = dict(zip(MATRICES, (a, a * g, (a * g).clamp(min=0), g.clamp(min=0)), strict=True))
    norms = {"l1": g.abs(), "l2": g.square(), "positive": g.clamp(min=0)}
    row, matrix, norm, totals = reduction
    return HeadSums(
        NOTHING if matrix is None else torch.einsum("ni,nhij->nhj", row.double(), matrices[matrix]),
        NOTHING if norm is None else norms[norm].sum((-2, -1)) ** (0.5 if norm == "l2" else 1),
        NOTHING if totals is None else matrices[totals].sum(-1),
    )


def read_in_a_batch(layer, reduction):
    """The second of two layers, which are alike where there is no mask."""
    other = layer._replace(query=layer.key, key=layer.query, mask=None)
    return readers([other, layer])[1](reduction)


WAYS = {**IMPLEMENTATIONS, "batched": (lambda layer, reduction: True, read_in_a_batch)}


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("norm", [None, *NORMS])
@pytest.mark.parametrize("matrix", [None, *MATRICES])
@pytest.mark.parametrize("way", WAYS)
def test_the_dense_numbers(way, matrix, norm, masked):
    layer, row = layer_gradient(masked=masked)
    reduction = Reduction(None if matrix is None else row, matrix, norm)
    is_open, read = WAYS[way]
    if is_open(layer, reduction):
        assert_close(read(layer, reduction), dense(layer, reduction))


def test_any_layer_can_be_read():
    layer, row = layer_gradient(masked=True)
    reduction = Reduction(row, "positive", "l1")
    assert_close(read_layer(layer, reduction), dense(layer, reduction))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_small_rows_keep_their_digits_in_half_precision(dtype):
    """Those of float16 end at 6e-8."""
    layer, row = layer_gradient(dtype=dtype)
    reduction = Reduction(1e-7 * row, "attention")
    (_, read), exact = IMPLEMENTATIONS["value"], dense(layer, reduction).rows
    assert_close(read(layer, reduction).rows.double(), exact, rtol=4 * torch.finfo(dtype).eps, atol=1e-9)
