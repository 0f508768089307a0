"""What a call costs beyond the model's own passes where arithmetic is little: CPU time, interleaved, one thread.

    python -m benchmarks.overhead [--rounds 15] [--large]

Of a tiny ViT (hidden 16, 2 heads, 17 tokens, 12 layers) and one image of a ViT-Ti/16 at 224², each method's median over
that of the model's own forward and backward pass, or of a forward pass where the method takes no gradient. ``--large``
measures a layer of ViT-B/16 at 768² and 1024² instead: what a model of 4 layers takes more than one of 2, in which the
last layer, of which the classifier reads one token alone, is left out.
"""

import argparse
import random
import statistics
import time
from collections.abc import Callable

import torch
from transformers import ViTConfig, ViTForImageClassification

from benchmarks.machine import keep_freed_memory
from captum_gmar.attr.catalogue import METHODS

TINY = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 32, "patch_size": 8}
TI = {"hidden_size": 192, "num_attention_heads": 3, "intermediate_size": 768}
FORWARD, BOTH, FIVE = "forward", "forward + backward", "forward + 5 backward"
ROWS = {
    "gmar-l1": BOTH,
    "gmar-l2": BOTH,
    "gradient-rollout": BOTH,
    "attention-evidence": BOTH,
    "rollout": FORWARD,
    "gmar-l1, 5 targets": FIVE,
}


def build(pixels: int, **options: int) -> tuple[ViTForImageClassification, torch.Tensor]:
    torch.manual_seed(0)
    model = ViTForImageClassification(ViTConfig(**{"image_size": pixels, "num_labels": 10, **options})).eval()
    return model, torch.randn(1, 3, pixels, pixels)


def passes(model: ViTForImageClassification, inputs: torch.Tensor) -> dict[str, Callable[[], object]]:
    """Every row, and the model's own passes."""
    frozen = ViTForImageClassification(model.config).eval().requires_grad_(False)
    frozen.load_state_dict(model.state_dict())

    def backward(targets: int) -> None:
        leaf = inputs.clone().requires_grad_()
        logits = frozen(leaf).logits
        for target in range(targets):
            torch.autograd.grad(logits[:, target].sum(), leaf, retain_graph=target < targets - 1)

    def forward() -> None:
        with torch.no_grad():
            frozen(inputs)

    runs: dict[str, Callable[[], object]] = {FORWARD: forward, BOTH: lambda: backward(1), FIVE: lambda: backward(5)}
    for name in ROWS:
        method = METHODS[name.removesuffix(", 5 targets")].load()(model)
        several = name.endswith("targets")
        runs[name] = (
            (lambda method=method: method.explain(inputs, [0, 1, 2, 3, 4]).relevance)
            if several
            else (lambda method=method: method.attribute(inputs, 3))
        )
    return runs


def medians(runs: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Seconds of the process, all runs in each round, in an order of its own: what one leaves behind slows the next."""
    taken: dict[str, list[float]] = {name: [] for name in runs}
    shuffled, order = random.Random(0), list(runs)
    for _ in range(rounds):
        shuffled.shuffle(order)
        for name in order:
            begin = time.process_time()
            runs[name]()
            taken[name].append(time.process_time() - begin)
    return {name: statistics.median(times[1:] or times) for name, times in taken.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--large", nargs="*", type=int, metavar="PIXELS")
    options = parser.parse_args()
    keep_freed_memory()
    torch.set_num_threads(1)
    cases: dict[str, Callable[[], dict[str, float]]] = {}
    if options.large is None:
        cases["tiny ViT, 12 layers"] = lambda: medians(passes(*build(32, num_hidden_layers=12, **TINY)), options.rounds)
        cases["ViT-Ti/16, 224²"] = lambda: medians(passes(*build(224, num_hidden_layers=12, **TI)), options.rounds)
    for pixels in options.large or ([768, 1024] if options.large == [] else []):
        cases[f"ViT-B/16, {pixels}², a layer"] = lambda pixels=pixels: of_layers(pixels, options.rounds)
    for name, measure in cases.items():
        times = measure()
        print(f"{name}: " + ", ".join(f"{own} {times[own] * 1e3:.1f} ms" for own in (FORWARD, BOTH)))
        for row, own in ROWS.items():
            if row in times:
                print(f"  {row:20} {times[row] / times[own]:.2f} × {own}", flush=True)


def of_layers(pixels: int, rounds: int) -> dict[str, float]:
    """Seconds of one layer."""
    few, many = (passes(*build(pixels, num_hidden_layers=layers)) for layers in (2, 4))
    names = [name for name in few if "5" not in name]
    runs = {(depth, name): runs[name] for name in names for depth, runs in (("few", few), ("many", many))}
    times = medians(runs, rounds)
    return {name: (times["many", name] - times["few", name]) / 2 for name in names}


if __name__ == "__main__":
    main()
