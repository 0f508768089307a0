"""The gradient of a training step, shared out over processes.

A step's batch is cut into parts, and each process takes the next part when it is free. So a busy processor
delays a step by one part at most, where threads would wait for each other within every operation.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
import torch
import torch.multiprocessing
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from transformers import ViTForImageClassification

from tools.demo_model.batches import QUESTIONS, Batch, Pool, draw_batch
from tools.demo_model.network import build_model

QUESTIONED_LAYERS: Final = (4, 6)  # whose patch tokens answer the questions, counted from 1
_OBJECT_WEIGHT: Final = 6.0  # of patches that show something, against those that do not
_PARTS: Final = 4


@dataclass(frozen=True)
class Task:
    """What the processes share: weights in shared memory, scenes, and how batches are drawn from them."""

    model: ViTForImageClassification
    heads: nn.ModuleList
    pool: Pool
    batch_size: int
    side: int
    seed: int

    def parameters(self) -> list[nn.Parameter]:
        return [p for p in (*self.model.parameters(), *self.heads.parameters()) if p.requires_grad]


class StepGradient(Protocol):
    """Computes the gradient of a step with respect to the task's parameters, and its loss."""

    def __call__(self, step: int) -> tuple[list[Tensor], float]: ...


@contextmanager
def open_workers(task: Task, workers: int) -> Iterator[StepGradient]:
    """Start processes that see every change of the task's weights."""
    task.model.share_memory()
    task.heads.share_memory()
    sizes, shapes = zip(*((p.numel(), p.shape) for p in task.parameters()), strict=True)
    options = (task.model.state_dict(), task.heads, task.pool, task.batch_size, task.side, task.seed)
    context = torch.multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_start, initargs=options) as executor:

        def step_gradient(step: int) -> tuple[list[Tensor], float]:
            numbers = range(step * _PARTS, (step + 1) * _PARTS)
            gradients, losses = zip(*executor.map(_work, numbers), strict=True)
            flat = torch.from_numpy(np.mean(gradients, axis=0))
            pieces = zip(torch.split(flat, list(sizes)), shapes, strict=True)
            return [piece.reshape(shape) for piece, shape in pieces], float(np.mean(losses))

        yield step_gradient


_task: Task | None = None  # of a worker process


def _start(weights: dict[str, Tensor], heads: nn.ModuleList, pool: Pool, batch_size: int, side: int, seed: int) -> None:
    """Rebuild the task around the shared weights: a model of transformers does not survive pickling whole."""
    global _task
    torch.set_num_threads(1)
    model = build_model(side)
    model.load_state_dict(weights, assign=True)
    _task = Task(model.train(), heads, pool, batch_size, side, seed)


def _work(number: int) -> tuple[NDArray[np.float32], float]:
    """Return the gradient and the loss of the part of that number, which alone decides what is drawn."""
    if _task is None:
        raise RuntimeError("The worker was not started with a task.")
    generator = torch.Generator().manual_seed(_task.seed * 1_000_003 + number)
    batch = draw_batch(_task.pool, _task.batch_size // _PARTS, _task.side, generator)
    loss = _loss(_task.model, _task.heads, batch)
    gradients = torch.autograd.grad(loss, _task.parameters())
    return torch.cat([gradient.flatten() for gradient in gradients]).numpy(), float(loss.detach())


def _loss(model: ViTForImageClassification, heads: nn.ModuleList, batch: Batch) -> Tensor:
    output = model(batch.pixel_values, output_hidden_states=True)
    loss = class_loss(output.logits, batch.class_targets)
    for head, layer in zip(heads, QUESTIONED_LAYERS, strict=True):
        loss = loss + patch_loss(head(output.hidden_states[layer][:, 1:]), batch.patch_targets)
    return loss


def class_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the mean cross-entropy over images with an object; others have all-zero targets."""
    return -(targets * logits.log_softmax(dim=-1)).sum() / targets.sum().clamp(min=1)


def patch_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the cross-entropy of each question, summed over questions."""
    total = logits.new_zeros(())
    answers, shares = (torch.split(values, list(QUESTIONS), dim=-1) for values in (logits, targets))
    for answer, target in zip(answers, shares, strict=True):
        weight = torch.where(target[..., -1] < 0.7, _OBJECT_WEIGHT, 1.0)
        entropy = functional.cross_entropy(answer.movedim(-1, 1), target.movedim(-1, 1), reduction="none")
        total = total + (entropy * weight).sum() / weight.sum()
    return total
