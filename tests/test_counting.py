"""What is counted of a call, against what is worked out by hand."""

import pytest
import torch
import torch.nn.functional as F

pytest.importorskip("benchmarks.cases", reason="the benchmarks are not installed; they run in a checkout")

from benchmarks import counting
from benchmarks.cases import Case
from benchmarks.counting import DEPTHS, LAUNCH, Count, count, count_call, main, own_of
from benchmarks.rows import BOTH, FORWARD, Subject
from captum_gmar.engine.kernels.reduction import LayerGradient, Reduction
from captum_gmar.engine.kernels.triton_reduction import is_readable, read_by_kernel

TINY = Case("ViT-Ti", 32, 2, "bfloat16", layers=3)


def on_meta(*shape, dtype=torch.bfloat16):
    return torch.empty(shape, dtype=dtype, device="meta")


def test_a_product_reads_two_matrices_and_writes_one():
    a, b = on_meta(4096, 512), on_meta(512, 4096)
    counted = count_call(lambda: a @ b)
    assert counted[:3] == (1, 2 * (2 * 4096 * 512 + 4096**2), 2 * 512 * 4096**2)
    assert counted.seconds == pytest.approx(counted.flops / 990e12)


def test_float32_takes_longer_by_the_peaks():
    halves, singles = ([on_meta(4096, 4096, dtype=dtype)] * 2 for dtype in (torch.bfloat16, torch.float32))
    half, single = (count_call(lambda pair=pair: pair[0] @ pair[1]) for pair in (halves, singles))
    assert single.seconds / half.seconds == pytest.approx(990 / 67)


def test_what_is_small_takes_a_launch():
    assert count_call(lambda: on_meta(4) + 1) == (1, 16, 0, LAUNCH, 0)


@pytest.mark.parametrize(
    ("call", "passes"),
    [
        (lambda t: t.mT.reshape(-1), 2),
        (lambda t: t.view(-1)[None].expand(3, -1), 0),
        (lambda t: torch.empty_like(t), 0),
        (lambda t: t.new_zeros(64, 64), 1),
        (lambda t: t.mul_(t[:1]), 2 + 1 / 64),
        (lambda t: t.copy_(t.sum()), 2),
        (lambda t: t + t[0].sum(0, keepdim=True).expand(64, 64), 2 + 1 / 64),
        (lambda t: torch.baddbmm(t[None], t[None], t[None], beta=0, out=t[None]), 3),
    ],
    ids=["copy", "view", "new memory", "zeros", "in place", "overwritten", "expanded", "product without sum"],
)
def test_what_is_read_and_written_once(call, passes):
    """In units of a matrix, to which what is expanded or tiny adds next to nothing."""
    t = on_meta(64, 64)
    assert count_call(lambda: call(t)).bytes / (2 * 64 * 64) == pytest.approx(passes, abs=0.002)


def test_attention_is_one_operation_each_way():
    tensors = [on_meta(2, 3, 64, 16).requires_grad_() for _ in range(3)]
    forward = count_call(lambda: F.scaled_dot_product_attention(*tensors))
    both = count_call(lambda: torch.autograd.grad(F.scaled_dot_product_attention(*tensors).sum(), tensors))
    assert (forward.operations, both.operations) == (1, 4)  # and the sum with what its gradient begins with
    product = 2 * 2 * 3 * 64 * 64 * 16
    assert (forward.flops, both.flops) == (2 * product, 7 * product)


def test_the_host_waits_where_it_reads():
    flags = on_meta(3, dtype=torch.bool)
    assert count_call(lambda: bool(flags.all())).waits == 1
    assert count_call(lambda: flags.cpu()).waits == 1
    assert count_call(lambda: flags.all()).waits == 0


@pytest.mark.parametrize(("row", "own"), [("gmar-l1", BOTH), ("rollout", FORWARD)])
def test_layers_add_up(row, own):
    """Three layers, from those of two and four, are as if counted themselves; and so is what they are compared with."""
    subject = Subject(TINY, "meta")
    ratio = count(TINY, row)
    assert own_of(row) == own
    assert ratio.count == pytest.approx(count_call(subject.row(row).run))
    assert ratio.own == pytest.approx(count_call(subject.own(own)))
    assert 3 not in DEPTHS
    assert ratio.operations > 1


def test_tensors_are_as_before_afterwards():
    count_call(lambda: on_meta(2))
    assert not on_meta(2).is_cuda
    assert F.scaled_dot_product_attention is not counting.fused_attention


def test_says_what_it_is(capsys, monkeypatch):
    monkeypatch.setattr(counting, "CASES", (TINY,))
    main(["gmar-l1"])
    printed = capsys.readouterr().out
    assert printed.startswith("A count, not a measurement")
    assert counting.shown(count(TINY, "gmar-l1")) in printed


def test_kernels_count_as_what_they_read_and_write():
    """GMAR's: three products, of which one finds what softmax divides by; four tensors, and three rows in float32."""
    tensors = [on_meta(2, 3, 64, 16) for _ in range(4)]
    layer, reduction = (
        LayerGradient(*tensors, None, 0.25),
        Reduction(on_meta(2, 64, dtype=torch.float32), "attention", "l1"),
    )
    assert not is_readable(layer, reduction)
    counted = count_call(lambda: is_readable(layer, reduction) and read_by_kernel(layer, reduction))
    product, bytes_of_rows = 2 * 2 * 3 * 64 * 64 * 16, 4 * 2 * 3 * 64
    passes = (2 + 4) * 2 * tensors[0].numel(), bytes_of_rows + (3 * bytes_of_rows + 4 * 2 * 64)
    sum_of_norms = bytes_of_rows + 4 * 2 * 3
    assert counted[:3] == (3, sum(passes) + sum_of_norms, 3 * product)
    assert count_call(lambda: is_readable(layer, reduction), with_kernel=False) == Count()
