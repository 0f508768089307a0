"""A stage of training, its learning rates, and what a trainer's command line has in common."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

import torch
from torch import Tensor, nn

_WARM_UP: Final = 150  # steps
_MUON_FACTOR: Final = 5.0  # Muon's steps have unit spectral norm, so its learning rate is another
_REPORTS: Final = 15  # of each stage
_START: Final = time.perf_counter()


@dataclass(frozen=True)
class Stage:
    """Part of the training.

    Attributes:
        side: width and height of the images, in patches.
        scenes: how many scenes are rendered.
        steps, batch_size: how long it lasts.
        rates: learning rate at the start and at the end; it falls linearly.
    """

    side: int
    scenes: int
    steps: int
    batch_size: int
    rates: tuple[float, float]


def descend(
    optimizers: Sequence[torch.optim.Optimizer], stage: Stage, draw_loss: Callable[[], Tensor]
) -> Iterator[float]:
    """Train for a stage on one thread, yielding the loss after each step.

    Args:
        optimizers: Muon and AdamW, as :func:`~tools.training.optimizing.build_optimizers` returns them.
        stage: gives the number of steps and the learning rates.
        draw_loss: draws a batch and returns its loss.
    """
    parameters = [p for optimizer in optimizers for group in optimizer.param_groups for p in group["params"]]
    for step in range(stage.steps):
        _set_rates(optimizers, stage, step)
        for optimizer in optimizers:
            optimizer.zero_grad()
        loss = draw_loss()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        for optimizer in optimizers:
            optimizer.step()
        yield float(loss.detach())


def _set_rates(optimizers: Sequence[torch.optim.Optimizer], stage: Stage, step: int) -> None:
    first, last = stage.rates
    rate = (first + (last - first) * step / stage.steps) * min(1.0, (step + 1) / _WARM_UP)
    for optimizer, factor in zip(optimizers, (_MUON_FACTOR, 1.0), strict=True):
        for group in optimizer.param_groups:
            group["lr"] = factor * rate


def report_losses(losses: Iterable[float], stage: Stage) -> Iterator[int]:
    """Run a stage, printing its loss now and then, and yield the step after each print."""
    every = max(1, stage.steps // _REPORTS)
    for step, loss in enumerate(losses, 1):
        if step % every == 0 or step == stage.steps:
            report(f"side {stage.side}  step {step}/{stage.steps}  loss {loss:.3f}")
            yield step


def report(line: str) -> None:
    """Print a line behind the seconds since the start."""
    print(f"{time.perf_counter() - _START:.0f} s  {line}", flush=True)


class Train(Protocol):
    """Trains a model and writes it into a folder."""

    def __call__(self, output: Path, seed: int) -> None: ...


def run_command(train: Train, name: str) -> None:
    """Run a trainer with the options of its command line, on one thread."""
    parser = argparse.ArgumentParser(prog=f"python -m tools.{name}_model.train", description=f"Train the {name} model.")
    add = parser.add_argument
    add("--output", type=Path, default=Path(f"{name}-model"), help="folder to write (default: %(default)s)")
    add("--seed", type=int, default=0, help="seed of weights and order (default: %(default)s)")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    train(arguments.output, arguments.seed)
