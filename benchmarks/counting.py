"""What a call would cost on a data-centre GPU, counted on any machine: a count, not a measurement.

python -m benchmarks.counting
"""

from argparse import ArgumentParser
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import cache
from math import prod
from typing import Any, NamedTuple
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only
from torch.utils.flop_counter import flop_registry
from transformers import ViTConfig

from benchmarks.cases import SIZES, Case
from benchmarks.rows import OWN, Subject
from captum_gmar.attr.catalogue import OURS
from captum_gmar.engine import request
from captum_gmar.engine.hooks.attention_mode import AttentionCall
from captum_gmar.engine.kernels import fused, precision, triton_reduction
from captum_gmar.engine.kernels.layer import LayerGradient
from captum_gmar.files.markdown import table

ABOUT = """\
A count, not a measurement: of models of 2 and 4 layers, taken to all, run on tensors without numbers in the block sizes
and branches of a GPU. Each operation takes the longest of its bytes at 3.35 TB/s, its matrix products at 990 TFLOP/s
(float32: 67) and a launch of 4 µs, as an H100 has them at its best: ratios are meant, not times. The model's own
attention is one fused operation each way. Where the host reads a number of the device, for which it waits, it gets what
a usual call gives: every check passes, and the classifier reads the first token. Triton
kernels count as what they read, write and multiply."""
CASES = Case("ViT-B", 224, 64, "bfloat16"), Case("ViT-B", 1024, 4, "bfloat16"), Case("ViT-B", 224, 1, "bfloat16")
WITHOUT = ", without Triton"
COUNTED = tuple(name for name in OURS if name != "published-gmar")  # which needs the values of attention on the CPU
DEPTHS = 2, 4
DEVICE = "meta"
BYTES, LAUNCH = 3.35e12, 4e-6  # a second, and seconds
PEAKS = {2: 990e12, 4: 67e12, 8: 67e12}  # flops a second, by the bytes of a number: TF32 is off, as torch has it

aten: Any = torch.ops.aten
WITHOUT_LAUNCH = {
    aten.empty,
    aten.empty_like,
    aten.empty_strided,
    aten.new_empty,
    aten.new_empty_strided,
    aten._unsafe_view,
    aten.detach,
    aten.lift_fresh,
    aten.is_pinned,
    aten.set_,
    aten.resize_,
}
ONLY_SHAPED = {aten.new_zeros, aten.new_ones, aten.new_full, aten.zeros_like, aten.ones_like, aten.full_like}
READ_BY_HOST = {aten._local_scalar_dense, aten.nonzero, aten.equal, aten.is_nonzero}


class Count(NamedTuple):
    """Of one call."""

    operations: float = 0  # that launch a kernel
    bytes: float = 0  # read and written
    flops: float = 0  # in matrix products
    seconds: float = 0  # at the peaks
    waits: float = 0  # of the host, for a number of the device

    def __add__(self, other: "Count") -> "Count":  # type: ignore[override]
        return Count(*(a + b for a, b in zip(self, other, strict=True)))

    def times(self, factor: float) -> "Count":
        return Count(*(factor * number for number in self))


class Ratio(NamedTuple):
    """A row, counted, and the model's own pass that it is compared with."""

    count: Count
    own: Count

    @property
    def seconds(self) -> float:
        return self.count.seconds / self.own.seconds

    @property
    def operations(self) -> float:
        return self.count.operations / self.own.operations


def count(case: Case, row: str, with_kernel: bool = True) -> Ratio:
    """Count a row of the benchmarks and its own pass, over all layers of the case."""
    own, depth = own_of(row), case.layers or ViTConfig(**SIZES[case.model]).num_hidden_layers
    return Ratio(_of_depth(case, row, depth, with_kernel), _of_depth(case, own, depth, with_kernel))


def own_of(row: str) -> str:
    """Return the name of the own pass that a row is compared with."""
    return Subject(CASES[-1]._replace(layers=1), DEVICE).row(row).own


@cache
def _of_depth(case: Case, name: str, depth: int, with_kernel: bool) -> Count:
    subjects = [Subject(case._replace(layers=layers), DEVICE) for layers in DEPTHS]
    calls = [subject.own(name) if name in OWN else subject.row(name).run for subject in subjects]
    shallow, deep = (count_call(call, with_kernel) for call in calls)
    layer = (deep + shallow.times(-1)).times(1 / (DEPTHS[1] - DEPTHS[0]))
    return shallow + layer.times(depth - DEPTHS[0])


def count_call(call: Callable[[], object], with_kernel: bool = True) -> Count:
    """Count a call on tensors of DEVICE."""
    counting = Counting()
    with as_on_a_gpu(), kernels(counting, with_kernel), counting:
        call()
    return counting.count


class Counting(TorchDispatchMode):
    """Within the block, adds up what operations launch."""

    def __init__(self) -> None:
        super().__init__()
        self.count = Count()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        packet = func.overloadpacket
        inputs = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        there = [t for t in inputs if t.device.type == DEVICE]
        leaves = kwargs.get("device") is not None and torch.device(kwargs["device"]).type != DEVICE
        if there and (packet in READ_BY_HOST or leaves or (packet is aten.copy_ and args[0] not in there)):
            self.count += Count(waits=1)
            return usual_answer(func, args, kwargs)
        if there and len(there) < len(inputs):
            self.count += Count(waits=packet in (aten.copy_, aten._to_copy))
            if packet is not aten.copy_:
                args, kwargs = tree_map_only(Tensor, lambda t: t.to(DEVICE), (args, kwargs))
        result = func(*args, **kwargs)
        outputs = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        if any(t.device.type == DEVICE for t in outputs) and launches(func):
            flops = flop_registry.get(packet)
            sizes = args[:2] if func is aten.bmm.dtype else args  # that formula knows no precision
            done = flops(*sizes, **kwargs, out_val=result) if flops else 0
            self.launch(what_is_read(func, args, kwargs), outputs, done)
        if packet in (aten.any, aten.all):
            result.assumed = packet is aten.all
        elif packet is aten.count_nonzero:  # of tokens: the patches
            result.assumed = inputs[0].numel() - 1
        return result

    def launch(self, inputs: list[Tensor], outputs: list[Tensor], flops: float) -> None:
        """Adds one operation, which reads and writes these tensors once each."""
        moved = sum(map(size, inputs)) + sum(map(size, outputs))
        width = min((t.element_size() for t in inputs if t.is_floating_point()), default=4)
        self.count += Count(1, moved, flops, max(moved / BYTES, flops / PEAKS[width], LAUNCH))


def launches(func: Any) -> bool:
    """Return True if an operation launches a kernel; views and new memory do not."""
    if func.overloadpacket in WITHOUT_LAUNCH:
        return False
    returned = func._schema.returns
    return not returned or returned[0].alias_info is None or returned[0].alias_info.is_write


def what_is_read(func: Any, args: Any, kwargs: Any) -> list[Tensor]:
    """Tensors that an operation reads: not those that it only writes."""
    named = dict(zip((argument.name for argument in func._schema.arguments), args, strict=False)) | kwargs
    only_written = {argument.name for argument in func._schema.arguments if argument.is_out}
    packet = func.overloadpacket
    if packet in (aten.copy_, aten.fill_, aten.zero_) or packet in ONLY_SHAPED or named.get("beta") == 0:
        only_written.add("self")
    values = [value for name, value in named.items() if name not in only_written]
    return [leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor)]


def size(tensor: Tensor) -> int:
    """Return the bytes of a tensor in memory; expanded values count once."""
    numbers = prod(length for length, stride in zip(tensor.shape, tensor.stride(), strict=True) if stride)
    return numbers * tensor.element_size() if tensor.numel() else 0


def usual_answer(func: Any, args: Any, kwargs: Any) -> Any:
    """Answer the host's reads in a call without faults."""
    packet, tensor = func.overloadpacket, args[0]
    if packet is aten.nonzero:
        return torch.zeros(1, tensor.dim(), dtype=torch.int64, device=DEVICE)
    if packet is aten._local_scalar_dense:
        return getattr(tensor, "assumed", tensor.dtype == torch.bool)
    if packet is aten.copy_:
        return tensor
    if packet is aten._to_copy:
        dtype = kwargs.get("dtype") or tensor.dtype
        return torch.full(tensor.shape, getattr(tensor, "assumed", True), dtype=dtype)
    return True


def fused_attention(*args: Any, **kwargs: Any) -> Tensor:
    """``F.scaled_dot_product_attention`` as one operation: flash attention, or the other where that does not serve."""
    given = AttentionCall(*args, **kwargs)
    if has_torch_function(given[:3]):
        attended: Tensor = handle_torch_function(fused_attention, given[:3], *args, **kwargs)
        return attended
    query, key, value, mask, *_ = given._replace(is_causal=False).expand_heads()
    rest = {"is_causal": given.is_causal, "scale": given.scale}
    if mask is None and query.element_size() == 2:
        return aten._scaled_dot_product_flash_attention(query, key, value, 0.0, **rest)[0]
    if mask is not None and mask.dtype == torch.bool:
        mask = torch.zeros_like(mask, dtype=query.dtype).masked_fill_(~mask, -torch.inf)
    attends, wants_lse = aten._scaled_dot_product_efficient_attention, torch.is_grad_enabled()
    return attends(query, key, value, mask, wants_lse, 0.0, **rest)[0]


@contextmanager
def as_on_a_gpu() -> Iterator[None]:
    """Within the block, tensors of DEVICE are treated as those of a GPU."""
    is_cuda = property(lambda tensor: tensor.device.type in ("cuda", DEVICE))
    with (
        patch.object(torch.Tensor, "is_cuda", is_cuda, create=True),
        patch.object(torch, "is_autocast_enabled", lambda *args: False),
        patch.object(torch, "autocast", lambda *args, **kwargs: nullcontext()),
        patch.object(F, "scaled_dot_product_attention", fused_attention),
        patch.object(request, "_has_values", lambda pixels: True),
        patch.object(fused, "_is_right", lambda *form: True),
        patch.object(precision, "_multiplies_widely", lambda *form: True),
    ):
        yield


@contextmanager
def kernels(counting: Counting, with_kernel: bool) -> Iterator[None]:
    """Within the block, the Triton kernels are counted and not run, or are not there."""

    def run(name: str, layer: LayerGradient, tensors: Sequence[Tensor], tokens: int, **flags: int) -> None:
        matrix, of_queries = triton_reduction.KERNEL_MATRICES[flags["MATRIX"]], name == "row_sums"
        of_attention = of_queries or matrix in triton_reduction.OF_ATTENTION
        of_gradient = flags["NORM"] or matrix not in (None, "attention")
        tensors_of = {"scores": (layer.query, layer.key), "gradient": (layer.value, layer.grad_output)}
        products = [name for name, needed in (("scores", of_attention), ("gradient", of_gradient)) if needed]
        read = [tensor for product in products for tensor in tensors_of[product]]
        product = 2 * prod(layer.query.shape) * layer.key.shape[-2]
        others = {id(t): t for t in tensors if t.numel()}  # one is not there twice
        counting.launch(read, list(others.values()), len(products) * product)

    devices = {*triton_reduction.DEVICES, DEVICE} if with_kernel else set()
    with (
        patch.object(triton_reduction, "DEVICES", devices),
        patch.object(triton_reduction, "_has_triton", lambda: True),
        patch.object(triton_reduction, "_passes_test", lambda form: True),
        patch.object(triton_reduction, "run_kernel", run),
    ):
        yield


def shown(ratio: Ratio) -> str:
    """Format the ratios of time and launches, and the waits, ``2.33 ×; 3.23 ×; 29``."""
    return f"{ratio.seconds:.2f} ×; {ratio.operations:.2f} ×; {ratio.count.waits:.0f}"


def ratios(counted: Mapping[str, Mapping[Case, Ratio]]) -> str:
    """Return a table of every row and case."""
    header = ["time; launches; waits", *map(str, CASES)]
    return table(header, ([row, *(shown(of_case[case]) for case in CASES)] for row, of_case in counted.items()))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = ArgumentParser("python -m benchmarks.counting", description=ABOUT)
    parser.add_argument(
        "rows", nargs="*", default=COUNTED, metavar="METHOD", help="default: all of this package but published-gmar"
    )
    counted = {}
    for row in parser.parse_args(arguments).rows:
        counted[row] = {case: count(case, row) for case in CASES}
        without = {case: count(case, row, with_kernel=False) for case in CASES}
        if without != counted[row]:
            counted[row + WITHOUT] = without
    print(ABOUT, ratios(counted), sep="\n\n")


if __name__ == "__main__":
    main()
