"""Reductions by Triton kernels: no matrix of tokens × tokens, nor a block of one, is ever in memory.

Used where Triton is (it comes with torch for CUDA), on the devices that it serves. The first use of each reduction on
the user's device compares the kernel, for each precision and head dimension, with blocks of float64. A kernel that
differs or cannot be compiled is not used, and a warning says so once; nor is one that takes longer than blocks, which a
line of the log says.

Letters in shapes: N examples, H heads, T tokens, D head dimension. In formulas: A attention, G its gradient.
"""

import logging
import math
import threading
import time
import warnings
from collections.abc import Sequence
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import NamedTuple

import torch
from torch import Tensor

from captum_gmar.engine.kernels.blocks import read_in_blocks
from captum_gmar.engine.kernels.layer import LayerGradient
from captum_gmar.engine.kernels.reduction import NOTHING, HeadSums, Matrix, Reduce, Reduction

logger = logging.getLogger(__name__)

DEVICES = {"cuda"}  # in tests also "cpu", under Triton's interpreter
KERNEL_PRECISIONS = torch.float16, torch.bfloat16, torch.float32
LARGEST_HEAD = 512  # bytes of a token: tiles of more do not fit on every device
TOLERANCE = 1e-4  # of the largest number: products of half precision are exact in float32, in which they add up

# By their numbers in the kernel.
KERNEL_MATRICES = ("attention", "product", "positive", "positive gradient", None)
KERNEL_NORMS = (None, "l1", "l2", "positive")
OF_ATTENTION = KERNEL_MATRICES[:3]

_results: dict["_Form", bool] = {}  # of the tests
_tests_lock = threading.Lock()


class _Form(NamedTuple):
    """A form that a kernel is compiled for."""

    device: torch.device
    precision: torch.dtype
    size: int  # of a head
    mask: torch.dtype | None
    matrix: Matrix | None
    norm: str | None
    totals: Matrix | None

    def __str__(self) -> str:
        precision = str(self.precision).removeprefix("torch.")
        return f"{self.matrix or self.norm or self.totals} in {precision}, head dimension {self.size}, on {self.device}"


def is_readable(layer: LayerGradient, reduction: Reduction) -> bool:
    """Return whether the kernels take this reduction of the layer, and rightly: the first use tests it."""
    query, mask = layer.query, layer.mask
    precision, size = query.dtype, query.shape[-1]
    if (
        query.device.type not in DEVICES
        or precision not in KERNEL_PRECISIONS
        or size * precision.itemsize > LARGEST_HEAD
        or (size > 128 and 0 < _capability(query.device) < 80)  # registers would spill
        or any((t.dtype, t.device, t.shape[-1]) != (precision, query.device, size) for t in layer[:4])
        or reduction.totals not in (None, *OF_ATTENTION)
        or not _has_triton()
    ):
        return False
    form = _Form(query.device, precision, size, None if mask is None else mask.dtype, *reduction[1:])
    with _tests_lock:
        if form not in _results:
            _results[form] = _passes_test(form)
    return _results[form]


@cache
def _has_triton() -> bool:
    return find_spec("triton") is not None


def read_by_kernel(layer: LayerGradient, reduction: Reduction) -> HeadSums:
    """Compute a reduction in a pass over the keys of each query and one over the queries of each key."""
    row, matrix, norm, summed = reduction
    queries, keys = layer.query.shape[:-1], torch.Size((*layer.query.shape[:2], layer.key.shape[-2]))
    sums_queries = matrix is None and summed is not None  # which of the passes adds up the norm
    rows, norms = _space(layer, keys, matrix), _space(layer, queries if sums_queries else keys, norm)
    totals = _space(layer, queries, summed)
    lse = NOTHING if summed or layer.lse is None else layer.lse
    if lse is NOTHING and (summed or matrix in OF_ATTENTION):
        lse = _space(layer, queries, True)
        flags = {"MATRIX": KERNEL_MATRICES.index(summed), "NORM": KERNEL_NORMS.index(norm if sums_queries else None)}
        run_kernel("row_sums", layer, (lse, totals, norms if sums_queries else NOTHING), queries[-1], **flags)
    if not sums_queries:
        wide = NOTHING if row is None else row.to(torch.float32).contiguous()
        flags = {"MATRIX": KERNEL_MATRICES.index(matrix), "NORM": KERNEL_NORMS.index(norm)}
        run_kernel("column_sums", layer, (lse, wide, rows, norms), keys[-1], **flags)
    if norm is not None:
        norms = norms.sum(-1).sqrt_() if norm == "l2" else norms.sum(-1)
    return HeadSums(rows, norms, totals)


def _space(layer: LayerGradient, shape: torch.Size, wanted: object) -> Tensor:
    return torch.empty(shape, dtype=torch.float32, device=layer.query.device) if wanted else NOTHING


def pad_head(size: int) -> int:
    """Return the power of two that holds a head dimension, and at least what a product of tiles takes."""
    return max(16, 1 << (size - 1).bit_length())


class Launch(NamedTuple):
    """Compiler settings of a kernel."""

    tile: int  # queries, and keys, that a program has at once
    warps: int
    precision: str  # of products of float32; those of half precision are exact in any


def choose_launch(precision: torch.dtype, padded: int, *, sums_rows: bool, capability: int) -> Launch:
    """Return settings by which no form runs out of registers or shared memory; ``python -m tools.kernels`` shows it.

    Args:
        precision: of the layer's tensors.
        padded: head dimension, as a power of two.
        sums_rows: the kernel adds up rows of M; else columns, or scores alone.
        capability: of the device, such as 90 for 9.0; 0 for one that is not NVIDIA's.
    """
    is_old, is_large = capability < 80, padded > 64
    if precision == torch.float32:
        uses_tensor_cores = not is_old and not is_large
        tile = 16 if is_old and is_large else 32
        return Launch(tile, 4 if uses_tensor_cores and not sums_rows else 8, "tf32x3" if uses_tensor_cores else "ieee")
    if is_old or padded > 128:
        return Launch(16 if sums_rows or is_large else 32, 8 if is_old and sums_rows and is_large else 4, "ieee")
    return Launch(32 if sums_rows or is_large else 64, 4, "ieee")


def _capability(device: torch.device) -> int:
    if device.type != "cuda" or torch.version.hip:
        return 0
    major, minor = torch.cuda.get_device_capability(device)
    return 10 * major + minor


def run_kernel(name: str, layer: LayerGradient, tensors: Sequence[Tensor], tokens: int, **flags: int) -> None:
    """Run one of the kernels on a layer and further tensors, a program for every head and tile of the tokens."""
    query, key, value, grad_output, mask, scale, _ = layer
    examples, heads, queries, size = query.shape
    keys, padded = key.shape[-2], pad_head(size)
    sums_rows = name == "row_sums" and flags["MATRIX"] < len(OF_ATTENTION)
    launch = choose_launch(query.dtype, padded, sums_rows=sums_rows, capability=_capability(query.device))
    inputs = [t if t.stride(-1) == 1 else t.contiguous() for t in (query, key, value, grad_output)]
    masks = query if mask is None else mask.expand(*query.shape[:3], keys)
    if masks.dtype == torch.bool:
        masks = masks.view(torch.uint8)
    strides = [stride for t in inputs for stride in t.stride()[:3]]
    others = [t if t.numel() else query for t in tensors]  # where there is nothing to read or write, any will do
    numbers = scale, heads, heads // key.shape[1], queries, keys
    kernel = getattr(import_module("captum_gmar.engine.kernels._triton"), name)
    with torch.cuda.device_of(query):  # type: ignore[no-untyped-call]  # which Triton runs on
        kernel[(examples * heads * -(-tokens // launch.tile),)](
            *(*inputs, masks, *others, *strides, *masks.stride(), *numbers),
            D=size,
            D_PADDED=padded,
            BI=launch.tile,
            BJ=launch.tile,
            MASK=0 if mask is None else 2 if mask.dtype == torch.bool else 1,
            PRECISION=launch.precision,
            num_stages=2,
            num_warps=launch.warps,
            **flags,
        )


def _passes_test(form: _Form) -> bool:
    """Compare the kernels with blocks on random layers; warn if they differ."""
    try:
        error = max(_error(form, tokens) for tokens in (33, 96))
    except torch.OutOfMemoryError:
        raise
    except Exception as failure:  # whatever compilers raise
        reason = f"it does not run: {type(failure).__name__}: {failure}".splitlines()[0]
    else:
        if error < TOLERANCE:
            return form.device.type == "cpu" or _is_quicker(form)  # Triton's interpreter is on the CPU
        reason = f"it is wrong by {error:.1g} of the largest number"
    warnings.warn(
        f"The Triton kernel for {form} is not used, as {reason}. Attention is computed in chunks instead: the results "
        "are the same, but take longer.",
        RuntimeWarning,
        stacklevel=2,
    )
    return False


def _is_quicker(form: _Form) -> bool:
    """Return whether the kernel takes less time than blocks on the device, for 8 images of a ViT-B at 384²."""
    arguments = _random_reduction(form, form.device, form.precision, examples=8, heads=12, tokens=577)
    kernel, blocks = (_least_time(read, *arguments) for read in (read_by_kernel, read_in_blocks))
    if kernel >= blocks:
        logger.info(f"The Triton kernel for {form} takes {kernel:.2g} s, and blocks {blocks:.2g} s, which are used.")
    return kernel < blocks


def _least_time(read: Reduce, layer: LayerGradient, reduction: Reduction) -> float:
    """Return the least time of three runs after a first."""
    times = []
    for _ in range(4):
        start = time.perf_counter()
        read(layer, reduction)
        if torch.accelerator.is_available():
            torch.accelerator.synchronize(layer.query.device)
        times.append(time.perf_counter() - start)
    return min(times[1:])


def _random_reduction(
    form: _Form, device: torch.device, precision: torch.dtype, *, examples: int = 2, heads: int = 2, tokens: int
) -> tuple[LayerGradient, Reduction]:
    """Return a random layer, laid out as models have it, and the form's reduction."""
    random = torch.Generator().manual_seed(0)
    shape = examples, tokens, heads, form.size
    tensors = [torch.randn(shape, generator=random).transpose(1, 2).to(form.precision) for _ in range(4)]
    row = torch.rand(examples, tokens, generator=random)
    mask = torch.randn(examples, 1, tokens, tokens, generator=random)
    masks = None if form.mask is None else (mask > 0 if form.mask == torch.bool else mask.to(form.mask)).to(device)
    query, key, value, grad_output = (t.to(device, precision) for t in tensors)
    layer = LayerGradient(query, key, value, grad_output, masks, form.size**-0.5)
    wide = row.to(device, torch.promote_types(precision, torch.float32))
    return layer, Reduction(wide, form.matrix, form.norm, form.totals)


def _error(form: _Form, tokens: int) -> float:
    """Return the largest error in a reduction of a random layer, as a share of the largest number; infinity for NaN."""
    exact = read_in_blocks(*_random_reduction(form, torch.device("cpu"), torch.float64, tokens=tokens))
    found = read_by_kernel(*_random_reduction(form, form.device, form.precision, tokens=tokens))
    pairs = [(a, b.to(a)) for a, b in zip(exact, found, strict=True) if a.numel()]
    return max(float(((a - b).abs().max() / a.abs().max()).nan_to_num(nan=math.inf)) for a, b in pairs)
