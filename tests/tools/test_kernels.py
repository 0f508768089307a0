"""The kernels compiled for GPUs, where Triton and its compiler are."""

import pytest
from installed import has_triton

pytest.importorskip("tools.kernels", reason="the tools are not installed; they stand in a checkout")

from tools.kernels import all_forms, compile_kernel

pytestmark = pytest.mark.skipif(not has_triton(3, 6), reason="there is no Triton with a compiler of its own")


@pytest.mark.parametrize("target", [75, 80, 90, "gfx942"])
@pytest.mark.parametrize("sums", [("row_sums", (2, 3)), ("column_sums", (2, 3))], ids=str)
def test_no_registers_spill_in_float32(sums, target):
    """Most people load a ViT in float32, with heads of 64."""
    usage = compile_kernel(sums[0], "fp32", 64, sums[1], target)
    assert usage.fits(target), usage


def test_half_precision_of_the_norm_and_row_of_gmar():
    assert compile_kernel("column_sums", "bf16", 64, (0, 1), 90).fits(90)


def test_heads_that_are_too_large_are_left_out():
    assert {size for _, precision, size, _ in all_forms(["fp32", "bf16"], [128, 256]) if precision == "fp32"} == {128}
