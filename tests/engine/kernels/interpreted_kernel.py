"""The kernels, run on the CPU by Triton's interpreter, against formulas in float64. `test_kernel` runs these tests.

They are apart because Triton looks when it is imported whether it is to interpret. It computes no products of bfloat16
rightly, so these are left to the kernel's own test on the user's device.
"""

import warnings

import pytest
import torch
import torch.nn.functional as F

from captum_gmar.engine.kernels import triton_reduction
from captum_gmar.engine.kernels.fused import log_sums
from captum_gmar.engine.kernels.reduction import LayerGradient, Reduction
from captum_gmar.engine.kernels.triton_reduction import is_readable, read_by_kernel
from engine.kernels.test_dispatch import MATRICES, dense

TOKENS = 70  # two tiles, the second of which is not full


def random_layer(size=16, precision=torch.float32, mask=None, key_heads=2, tokens=TOKENS, examples=1):
    """A layer as models have it, whose heads do not lie together, and a row."""
    random = torch.Generator().manual_seed(0)
    heads = (2, key_heads, key_heads, 2)
    tensors = [torch.randn(examples, tokens, of, size, generator=random).to(precision).transpose(1, 2) for of in heads]
    return LayerGradient(*tensors, mask, 0.7 * size**-0.5), torch.rand(examples, tokens, generator=random)


def assert_reads(layer, row, matrix, norm=None, totals=None, rtol=1e-5):
    reduction = Reduction(row, matrix, norm, totals)
    for found, exact in zip(read_by_kernel(layer, reduction), dense(layer, reduction), strict=True):
        assert found.dtype == torch.float32
        largest = float(exact.abs().max()) if exact.numel() else 0
        torch.testing.assert_close(found.double(), exact.double(), rtol=rtol, atol=1e-6 * largest)


@pytest.mark.parametrize(
    ("matrix", "norm"),
    [*((matrix, None) for matrix in MATRICES), (None, "l1"), (None, "l2"), ("attention", "l1"), ("positive", "l2")],
)
def test_every_reading(matrix, norm):
    assert_reads(*random_layer(), matrix, norm)


FEWER = {"tokens": 40}
ADDED = torch.randn(1, 2, TOKENS, TOKENS, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("kind", "change", "reduction"),
    [
        (FEWER, {}, (None, "positive", "positive")),
        (FEWER, {}, ("attention", "positive", "product")),
        # Products of half precision are exact in float32, so they are no further off.
        *(
            ({**FEWER, "size": size, "precision": precision}, {}, ("positive", "l1"))
            for size in (20, 80)
            for precision in (torch.float32, torch.float16)
        ),
        ({"mask": ADDED}, {}, ("attention", "l1")),
        ({"key_heads": 1, "examples": 2}, {}, ("positive", "l1")),
        # A softmax whose exponentials would be infinite without its maximum.
        (FEWER, {"scale": 40.0}, ("attention",)),
    ],
)
def test_other_layers_and_readings(kind, change, reduction):
    layer, row = random_layer(**kind)
    assert_reads(layer._replace(**change), row, *reduction)


def test_a_mask_that_hides():
    """From one query everything, which then attends to nothing; the mask is one for all heads."""
    mask = torch.ones(TOKENS, TOKENS, dtype=torch.bool).tril()
    mask[5] = False
    layer, row = random_layer(mask=mask[None, None])
    assert_reads(layer, row, "positive", None)
    rows = torch.zeros_like(row)
    rows[:, 5] = 1
    assert read_by_kernel(layer, Reduction(rows, "attention")).rows.abs().max() == 0


def test_tokens_that_lie_apart_in_memory():
    layer, row = random_layer(tokens=40)
    strided = layer._replace(value=layer.value.mT.contiguous().mT)
    assert strided.value.stride(-1) != 1
    assert_reads(strided, row, "product", None)


@pytest.mark.parametrize(("matrix", "norm"), [("attention", None), ("positive", "l1")])
def test_sums_that_torch_knows_are_not_computed_again(monkeypatch, matrix, norm):
    layer, row = random_layer(precision=torch.float16, tokens=40)
    query = layer.query.clone().requires_grad_()
    lse = log_sums(F.scaled_dot_product_attention(query, layer.key, layer.value, scale=layer.scale), query)
    assert lse is not None
    names, run = [], triton_reduction.run_kernel

    def noted(name, *args, **flags):
        names.append(name)
        run(name, *args, **flags)

    monkeypatch.setattr(triton_reduction, "run_kernel", noted)
    assert_reads(layer._replace(lse=lse), row, matrix, norm, rtol=1e-4)
    assert names == ["column_sums"]


def test_its_own_test_passes_once(monkeypatch):
    monkeypatch.setattr(triton_reduction, "DEVICES", {"cpu"})
    layer, row = random_layer(precision=torch.float16)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert is_readable(layer, Reduction(row, "positive"))
    monkeypatch.setattr(triton_reduction, "run_kernel", None)
    assert is_readable(layer, Reduction(row, "positive"))
