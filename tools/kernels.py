"""Compiles the Triton kernels for GPUs without one, and prints what each form takes of a device.

    python -m tools.kernels
    python -m tools.kernels --targets 80,90,gfx942 --precisions fp32 --sizes 64

Needs Triton with its own compiler and ``cuobjdump``, as its wheel has them. A form is a kernel, a precision, a head
dimension, and what it sums. STACK is local memory, into which registers spill, in bytes a thread. Exit status 1 where
a form takes more than 64 of them, or more shared memory than the device has.
"""

import argparse
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import NamedTuple

import torch

from captum_gmar.engine.kernels.triton_reduction import LARGEST_HEAD, OF_ATTENTION, choose_launch, pad_head
from captum_gmar.files.markdown import table

PRECISIONS = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
SIZES = (32, 64, 80, 128, 256)
SHARED = {75: 64, 80: 163, 86: 99, 89: 99, 90: 227, 100: 227, 120: 99, "gfx90a": 64, "gfx942": 64}  # KiB of a program
MOST_STACK = 64  # bytes a thread
MASK = 1  # of numbers
# By kernel: matrices and norms, by their numbers, that take the most registers of each kind.
SUMS = {"row_sums": ((4, 0), (1, 1), (2, 3)), "column_sums": ((0, 1), (2, 3), (3, 0), (4, 1))}
TENSORS, SUMMED = ("Q", "K", "V", "G"), ("LSE", "TOTALS", "NORMS", "ROW", "COLUMNS")


class Usage(NamedTuple):
    """Resources of a compiled kernel."""

    registers: int
    stack: int
    shared: int  # bytes

    def fits(self, target: int | str) -> bool:
        """Return whether nothing spills and the device has the shared memory."""
        return self.stack <= MOST_STACK and self.shared <= SHARED[target] * 1024


def compile_kernel(kernel: str, precision: str, size: int, sums: tuple[int, int], target: int | str) -> Usage:
    """Compile a form of a kernel for an NVIDIA GPU of this compute capability, or an AMD GPU of this name."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from captum_gmar.engine.kernels import _triton

    function, padded = getattr(_triton, kernel), pad_head(size)
    sums_rows = kernel == "row_sums" and sums[0] < len(OF_ATTENTION)
    is_amd = isinstance(target, str)
    capability = 0 if is_amd else target
    launch = choose_launch(PRECISIONS[precision], padded, sums_rows=sums_rows, capability=capability)
    constants = {"D": size, "D_PADDED": padded, "BI": launch.tile, "BJ": launch.tile, "MASK": MASK}
    constants |= {"PRECISION": launch.precision, "MATRIX": sums[0], "NORM": sums[1]}
    pointers = dict.fromkeys((*TENSORS, "MASKS"), f"*{precision}") | dict.fromkeys(SUMMED, "*fp32") | {"scale": "fp32"}
    names = function.arg_names
    signature = {name: "constexpr" if name in constants else pointers.get(name, "i32") for name in names}
    aligned = {(names.index(name),): [["tt.divisibility", 16]] for name in TENSORS}
    source = ASTSource(function, signature, constants, aligned)
    options = {"num_warps": launch.warps, "num_stages": 2}
    gpu = GPUTarget("hip", target, 64) if is_amd else GPUTarget("cuda", target, 32)
    compiled = triton.compile(source, target=gpu, options=options)
    if is_amd:
        numbers = re.findall(r"\.(?:private_segment_fixed_size|vgpr_count): +(\d+)", compiled.asm["amdgcn"])
        return Usage(int(numbers[1]), int(numbers[0]), compiled.metadata.shared)  # in the order of their names
    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.asm["cubin"])
        file.flush()
        text = subprocess.run([tool, "-res-usage", file.name], capture_output=True, text=True, check=True).stdout
    registers, stack = map(int, re.search(r"REG:(\d+) STACK:(\d+)", text).groups())
    return Usage(registers, stack, compiled.metadata.shared)


def all_forms(precisions: Sequence[str], sizes: Sequence[int]) -> Iterator[tuple[str, str, int, tuple[int, int]]]:
    """Yield kernel, precision, head dimension and sums of each form that is used."""
    for precision, size, (kernel, kinds) in product(precisions, sizes, SUMS.items()):
        if size * PRECISIONS[precision].itemsize <= LARGEST_HEAD:
            yield from ((kernel, precision, size, sums) for sums in kinds)


def main(arguments: Sequence[str] | None = None) -> int:
    """Compile the forms, print their table and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tools.kernels", description=__doc__.splitlines()[0])
    parser.add_argument("--targets", type=_targets, default=tuple(SHARED), help="compute capabilities, gfx90a, gfx942")
    parser.add_argument("--precisions", type=lambda text: text.split(","), default=list(PRECISIONS))
    parser.add_argument("--sizes", type=_numbers, default=SIZES, help="head dimensions")
    chosen = parser.parse_args(arguments)
    rows, fit = [], True
    for form, target in product(all_forms(chosen.precisions, chosen.sizes), chosen.targets):
        if not isinstance(target, str) and target < 80 and form[2] > 128:
            continue  # left to chunks there
        usage = compile_kernel(*form, target)
        fit &= usage.fits(target)
        kernel, precision, size, sums = form
        gpu = target if isinstance(target, str) else f"sm_{target}"
        rows.append([f"{kernel} {sums}", precision, str(size), gpu, *map(str, usage)])
    print(table(["kernel (matrix, norm)", "precision", "head", "GPU", "registers", "stack", "shared"], rows))
    return 0 if fit else 1


def _targets(text: str) -> tuple[int | str, ...]:
    return tuple(int(target) if target.isdecimal() else target for target in text.split(","))


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split(",")))


if __name__ == "__main__":
    sys.exit(main())
