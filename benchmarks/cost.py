"""What each method costs beside the same model's own passes.

    python benchmarks/cost.py [--methods NAME ...]

Methods that read a gradient are compared with the model's own forward and backward pass to its input, methods without
with its plain forward pass. Time: the passes are interleaved in one process (A B A B …); a ratio is the median over
rounds of one pass's time over that of the model's own in the same round. Memory: the peak of a fresh process over what
it held before the pass.
"""

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import torch
import transformers
from transformers import ViTConfig, ViTForImageClassification

from captum_gmar import methods, record_attention

FORWARD, BOTH = "forward", "forward + backward"
CASES = [(224, 8, 4), (768, 1, 3)]  # pixels, batch, rounds
WITHOUT_GRADIENT = ("rollout", "rollout-forward", "rollout-additive", "raw-attention")
METHODS = [
    "gmar-l1",
    "gmar-l2",
    "gmar-forward",
    "gmar-additive",
    *WITHOUT_GRADIENT,
    "gradient-rollout",
    "gradient-rollout-gmar",
    "grad-sam",
    "attention-grad-cam",
    "legrad",
    "gmar++",
    "published-gmar",
]


def passes(size: int, batch: int, names: list[str]) -> dict[str, Callable[[], object]]:
    torch.manual_seed(0)
    model = ViTForImageClassification(ViTConfig(image_size=size, num_labels=1000)).eval()  # ViT-B/16, random weights
    inputs = torch.randn(batch, 3, size, size)
    frozen = ViTForImageClassification(ViTConfig(image_size=size, num_labels=1000)).eval().requires_grad_(False)

    def forward() -> object:
        with torch.no_grad():
            return frozen(inputs).logits

    def both() -> object:
        leaf = inputs.clone().requires_grad_()
        return torch.autograd.grad(frozen(leaf).logits[:, 3].sum(), leaf)

    made = {name: make(model) for name, make in methods().items() if name in names}
    calls = {name: lambda method=made[name]: method.attribute(inputs, 3) for name in names if name in made}
    dense = {"dense": lambda: record_attention(model, inputs, 3)} if "dense" in names else {}
    return {FORWARD: forward, BOTH: both, **calls, **dense}


def own(name: str) -> str:
    """The model's own pass that a pass is compared with."""
    return FORWARD if name in (FORWARD, *WITHOUT_GRADIENT) else BOTH


def seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def time_ratios(size: int, batch: int, rounds: int, names: list[str]) -> dict[str, dict[str, float]]:
    calls = passes(size, batch, names)
    for call in calls.values():
        call()
    taken = [{name: seconds(call) for name, call in calls.items()} for _ in range(rounds)]
    return {
        name: {
            "seconds": statistics.median(row[name] for row in taken),
            "ratio": statistics.median(row[name] / row[own(name)] for row in taken),
            "least": min(row[name] / row[own(name)] for row in taken),
            "most": max(row[name] / row[own(name)] for row in taken),
        }
        for name in calls
    }


def peak_memory(size: int, batch: int, name: str) -> float:
    """MiB that the pass adds to a fresh process."""
    command = [sys.executable, __file__, "--memory-of", name, "--size", str(size), "--batch", str(batch)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def report_own_memory(size: int, batch: int, name: str) -> None:
    call = passes(size, batch, [name])[name]
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # forgets the peak so far
    before = resident("VmRSS")
    call()
    print((resident("VmHWM") - before) / 1024)


def resident(field: str) -> int:
    """KiB, from Linux."""
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith(field))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--methods", nargs="+", choices=[*METHODS, "dense"], default=[*METHODS, "dense"], metavar="NAME"
    )
    parser.add_argument("--size", type=int, help="only images of this many pixels a side")
    parser.add_argument("--no-memory", action="store_true", help="time only")
    parser.add_argument("--json", help="also write the figures to this file")
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    parser.add_argument("--batch", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    transformers.logging.set_verbosity_error()
    if options.memory_of:
        report_own_memory(options.size, options.batch, options.memory_of)
        return
    print(f"{platform.machine()}, {options.threads} threads, torch {torch.__version__}, ", end="")
    print(f"transformers {transformers.__version__}; ViT-B/16, float32, random weights\n")
    print("| pixels | batch | pass | compared with | seconds | time ratio | least–most | peak MiB | memory ratio |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    figures = []
    for size, batch, rounds in CASES:
        if options.size not in (None, size):
            continue
        ratios = time_ratios(size, batch, rounds, options.methods)
        memory = {} if options.no_memory else {name: peak_memory(size, batch, name) for name in ratios}
        for name, row in ratios.items():
            peak, own_peak = memory.get(name, 0), memory.get(own(name), 1)
            figures.append({"pixels": size, "batch": batch, "pass": name, "of": own(name), **row, "peak_mib": peak})
            print(
                f"| {size} | {batch} | {name} | {own(name)} | {row['seconds']:.2f} | {row['ratio']:.3f} | "
                f"{row['least']:.2f}–{row['most']:.2f} | {peak:.0f} | {peak / own_peak:.2f} |"
            )
    if options.json:
        with open(options.json, "w") as file:
            json.dump(figures, file, indent=1)


if __name__ == "__main__":
    main()
