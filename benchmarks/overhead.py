"""What a call costs beyond the model's own passes where arithmetic is little: CPU time, interleaved, one thread.

    python -m benchmarks.overhead [--rounds 15]

Of a tiny ViT (hidden 16, 2 heads, 17 tokens, 12 layers) and one image of a ViT-Ti/16 at 224², each method's median over
that of the model's own forward and backward pass, or of a forward pass where the method takes no gradient.
"""

import argparse
import random
import statistics
import time
from collections.abc import Callable, Mapping

import torch

from benchmarks.cases import Case
from benchmarks.machine import keep_freed_memory
from benchmarks.rows import BOTH, FORWARD, OWN, Subject

CASES = {"tiny ViT, 12 layers": Case("tiny", 32), "ViT-Ti/16, 224²": Case("ViT-Ti", 224)}
ROWS = ("gmar-l1", "gmar-l2", "gradient-rollout", "attention-evidence", "rollout", "gmar-l1, 5 targets")


def medians(runs: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Return seconds of the process. Rounds have orders of their own, since what one run leaves slows the next."""
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
    rounds = parser.parse_args().rounds
    keep_freed_memory()
    torch.set_num_threads(1)
    for name, case in CASES.items():
        subject = Subject(case, "cpu")
        rows = {row: subject.row(row) for row in ROWS}
        own = {own: subject.own(own) for own in OWN}
        times = medians({**own, **{row: rows[row].run for row in ROWS}}, rounds)
        print(f"{name}: " + ", ".join(f"{own} {times[own] * 1e3:.1f} ms" for own in (FORWARD, BOTH)))
        for row in ROWS:
            print(f"  {row:20} {times[row] / times[rows[row].own]:.2f} × {rows[row].own}", flush=True)


if __name__ == "__main__":
    main()
