"""When the kernels are used. What they compute is tested by `interpreted_kernel`, where Triton is."""

import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
from installed import has_triton

from captum_gmar.engine.kernels import triton_reduction
from captum_gmar.engine.kernels.blocks import read_in_blocks
from captum_gmar.engine.kernels.reduction import HeadSums, LayerGradient, Reduction
from captum_gmar.engine.kernels.triton_reduction import choose_launch, is_readable

READING = Reduction(torch.rand(1, 5), "positive", "l1")


@pytest.mark.skipif(not has_triton(3, 6), reason="there is no Triton, or one whose interpreter newer numpys end")
def test_interpreted_on_the_cpu():
    cases = Path(__file__).with_name("interpreted_kernel.py")
    command = [sys.executable, "-m", "pytest", "-q", "-x", "--numprocesses=0", cases]
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    run = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout[-5000:] + run.stderr


@pytest.fixture
def layer(monkeypatch):
    """A layer on a device that the kernels serve, where Triton is."""
    monkeypatch.setattr(triton_reduction, "DEVICES", {"cpu"})
    monkeypatch.setattr(triton_reduction, "_has_triton", lambda: True)
    monkeypatch.setattr(triton_reduction, "_results", {})
    return LayerGradient(*torch.randn(4, 1, 2, 5, 16), None, 0.25)


def read_wrongly(layer, reduction):
    rows, norms, _ = read_in_blocks(layer, reduction)
    return HeadSums(1.001 * rows, norms)


def read_as_nan(layer, reduction):
    rows, norms, _ = read_in_blocks(layer, reduction)
    return HeadSums(rows, norms / 0 * 0)


def do_not_compile(layer, reduction):
    raise TypeError("no such tile\nin line 3")


@pytest.mark.parametrize(
    ("read", "reason"),
    [
        (read_wrongly, r"as it is wrong by 0\.001 of the largest number\."),
        (read_as_nan, r"as it is wrong by inf of the largest number\."),
        (do_not_compile, r"as it does not run: TypeError: no such tile\. Attention is computed in chunks instead"),
    ],
)
def test_one_that_fails_warns_once_and_is_not_used(monkeypatch, layer, read, reason):
    monkeypatch.setattr(triton_reduction, "read_by_kernel", read)
    with pytest.warns(RuntimeWarning, match=rf"positive in float32, head dimension 16, on cpu is not used, {reason}"):
        assert not is_readable(layer, READING)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not is_readable(layer, READING)


def test_one_that_reads_rightly_is_used_and_tested_once(monkeypatch, layer):
    monkeypatch.setattr(triton_reduction, "read_by_kernel", read_in_blocks)
    assert is_readable(layer, READING)
    monkeypatch.setattr(triton_reduction, "read_by_kernel", do_not_compile)
    assert is_readable(layer, READING)


def test_out_of_memory_says_nothing_of_the_kernel(monkeypatch, layer):
    def run_out(layer, reduction):
        raise torch.OutOfMemoryError("none left")

    monkeypatch.setattr(triton_reduction, "read_by_kernel", run_out)
    with pytest.raises(torch.OutOfMemoryError, match="none left"):
        is_readable(layer, READING)
    monkeypatch.setattr(triton_reduction, "read_by_kernel", read_in_blocks)
    assert is_readable(layer, READING)


@pytest.mark.parametrize(
    "other",
    [
        lambda layer: layer._replace(**{name: getattr(layer, name).double() for name in layer._fields[:4]}),
        lambda layer: layer._replace(value=layer.value.half()),
        lambda layer: layer._replace(value=layer.value[..., :8], grad_output=layer.grad_output[..., :8]),
        lambda layer: LayerGradient(*torch.randn(4, 1, 2, 5, 144), None, 0.25),
    ],
    ids=["float64", "mixed precision", "values of another size", "heads too large"],
)
def test_others_are_left_to_other_ways(monkeypatch, layer, other):
    monkeypatch.setattr(triton_reduction, "read_by_kernel", do_not_compile)
    assert not is_readable(other(layer), READING)


def test_a_cpu_has_no_use_for_it():
    """Not even where Triton is: so nothing is compiled, and nothing said."""
    assert {"cuda"} == triton_reduction.DEVICES
    assert not is_readable(LayerGradient(*torch.randn(4, 1, 2, 5, 16), None, 0.25), READING)


@pytest.mark.parametrize("is_slow", [False, True])
def test_the_quicker_of_kernel_and_blocks_is_used(monkeypatch, caplog, is_slow):
    now = [0.0]

    def take(seconds):
        return lambda layer, reduction: now.append(now[-1] + seconds)

    monkeypatch.setattr(triton_reduction.time, "perf_counter", lambda: now[-1])
    monkeypatch.setattr(triton_reduction, "read_by_kernel", take(0.05 if is_slow else 0.01))
    monkeypatch.setattr(triton_reduction, "read_in_blocks", take(0.02))
    form = triton_reduction._Form(torch.device("cpu"), torch.float32, 16, None, "positive", "l1", None)
    with caplog.at_level("INFO"):
        assert triton_reduction._is_quicker(form) is not is_slow
    assert ("takes 0.05 s, and blocks 0.02 s" in caplog.text) is is_slow


@pytest.mark.parametrize("capability", [0, 75, 80, 90])
def test_products_of_float32_are_exact(capability):
    """In tensor cores by three products of parts, and never by one of tf32, which is exact to 1e-3."""
    for padded in (16, 64, 128):
        launch = choose_launch(torch.float32, padded, sums_rows=True, capability=capability)
        assert launch.precision == ("tf32x3" if capability >= 80 and padded <= 64 else "ieee")
