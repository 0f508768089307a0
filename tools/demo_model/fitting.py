"""The steps of the demo model's training: optimizers, learning rates, and a state that can be kept."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor, nn

from captum_gmar.demo.patches import GRID
from tools.demo_model.gradients import Task, open_workers
from tools.demo_model.network import position_table, set_positions

_WARM_UP: Final = 150  # steps
_MUON_FACTOR: Final = 5.0  # Muon's steps have unit spectral norm, so its learning rate is another


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


class Fit:
    """A stage's training. From a kept state it goes on as if it had not been stopped."""

    def __init__(self, task: Task, stage: Stage) -> None:
        self.task = task
        self.stage = stage
        self.step = 0
        self._optimizers = _build_optimizers(task.model, task.heads)

    def run(self, workers: int) -> Iterator[float]:
        """Train to the end of the stage, yielding the loss after each step."""
        with open_workers(self.task, workers) as step_gradient:
            while self.step < self.stage.steps:
                if self.stage.side < GRID:
                    _move_positions(self.task, self.step)
                set_rates(self._optimizers, self.stage, self.step)
                gradients, loss = step_gradient(self.step)
                _step_by(self.task, gradients, self._optimizers)
                self.step += 1
                yield loss

    def state(self) -> dict[str, Any]:
        return {
            "step": self.step,
            "model": self.task.model.state_dict(),
            "heads": self.task.heads.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self._optimizers],
        }

    def load_state(self, state: dict[str, Any]) -> None:
        self.step = state["step"]
        self.task.model.load_state_dict(state["model"])
        self.task.heads.load_state_dict(state["heads"])
        for optimizer, kept in zip(self._optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(kept)


def _move_positions(task: Task, step: int) -> None:
    """Let the crops of a step pretend to come from one random place of the scene."""
    generator = torch.Generator().manual_seed(task.seed * 1_000_003 + step)
    row, column = torch.randint(GRID - task.side + 1, (2,), generator=generator).tolist()
    set_positions(task.model, position_table()[row : row + task.side, column : column + task.side])


def _step_by(task: Task, gradients: Sequence[Tensor], optimizers: Sequence[torch.optim.Optimizer]) -> None:
    for parameter, gradient in zip(task.parameters(), gradients, strict=True):
        parameter.grad = gradient
    take_step(task.parameters(), optimizers)


def take_step(parameters: Iterable[nn.Parameter], optimizers: Iterable[torch.optim.Optimizer]) -> None:
    """Let every optimizer take a step by the parameters' gradients, which are clipped together."""
    nn.utils.clip_grad_norm_(parameters, 1.0)
    for optimizer in optimizers:
        optimizer.step()


def descend(
    optimizers: Sequence[torch.optim.Optimizer], stage: Stage, draw_loss: Callable[[], Tensor]
) -> Iterator[float]:
    """Train for a stage in this process alone, yielding the loss after each step.

    Args:
        optimizers: As :func:`set_rates` takes them.
        stage: Its steps and rates are kept to.
        draw_loss: Draws a batch and returns its loss.
    """
    parameters = [p for optimizer in optimizers for group in optimizer.param_groups for p in group["params"]]
    for step in range(stage.steps):
        set_rates(optimizers, stage, step)
        for optimizer in optimizers:
            optimizer.zero_grad()
        loss = draw_loss()
        loss.backward()
        take_step(parameters, optimizers)
        yield float(loss.detach())


def _build_optimizers(model: nn.Module, heads: nn.Module) -> list[torch.optim.Optimizer]:
    """Return Muon for the matrices inside the layers, where it needs fewer steps, and AdamW for the rest."""
    matrices = {name: p for name, p in model.named_parameters() if p.ndim == 2 and "classifier" not in name}
    rest = [p for name, p in model.named_parameters() if p.requires_grad and name not in matrices]
    return [
        torch.optim.Muon(list(matrices.values()), weight_decay=0.05, adjust_lr_fn="original"),
        torch.optim.AdamW([*rest, *heads.parameters()], betas=(0.9, 0.98), weight_decay=0.0),
    ]


def set_rates(optimizers: Sequence[torch.optim.Optimizer], stage: Stage, step: int) -> None:
    first, last = stage.rates
    rate = (first + (last - first) * step / stage.steps) * min(1.0, (step + 1) / _WARM_UP)
    for optimizer, factor in zip(optimizers, (_MUON_FACTOR, 1.0), strict=True):
        for group in optimizer.param_groups:
            group["lr"] = factor * rate
