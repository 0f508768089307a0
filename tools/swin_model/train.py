"""Train a windowed classifier of built-in scenes, on one thread: `python -m tools.swin_model.train --output folder`.

As :mod:`tools.judge_model.train`: crops first, then whole scenes, with a throw-away head that asks every patch what it
shows. Its weights fit any size, as its positions are those within a window.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import torch
from torch import Tensor, nn
from transformers import SwinForImageClassification

from captum_gmar.demo.patches import GRID
from tools.demo_model.batches import QUESTIONS, Batch, draw_batch, render_pool
from tools.demo_model.fitting import Stage, descend
from tools.demo_model.gradients import class_loss, patch_loss
from tools.demo_model.measures import accuracy
from tools.demo_model.train import save_processor
from tools.judge_model.optimizing import build_optimizers
from tools.swin_model.network import WIDTH, build_swin

FIRST_SEED: Final = 4_000_000  # of the scenes that it is trained on
SCENES: Final = 12_000
STAGES: Final = (
    Stage(side=7, scenes=SCENES, steps=2_600, batch_size=48, rates=(3e-3, 1e-3)),
    Stage(side=GRID, scenes=SCENES, steps=1_200, batch_size=16, rates=(1e-3, 1e-5)),
)
_REPORT_EVERY: Final = 200  # steps


def train(output: Path, seed: int, stages: Sequence[Stage]) -> None:
    """Train a model and write it and its image processor into a folder."""
    torch.manual_seed(seed)
    began = time.perf_counter()
    pool = render_pool(FIRST_SEED, max(stage.scenes for stage in stages), workers=1)
    model, head = build_swin(GRID).train(), nn.Sequential(nn.LayerNorm(WIDTH), nn.Linear(WIDTH, sum(QUESTIONS)))
    generator = torch.Generator().manual_seed(seed)
    optimizers = build_optimizers(model, head)
    for stage in stages:
        restore_shifts(model)

        def draw_loss(stage: Stage = stage) -> Tensor:
            return _loss(model, head, draw_batch(pool, stage.batch_size, stage.side, generator))

        for step, loss in enumerate(descend(optimizers, stage, draw_loss), 1):
            if step % _REPORT_EVERY == 0:
                print(
                    f"side {stage.side}  step {step}  {time.perf_counter() - began:.0f} s  loss {loss:.3f}", flush=True
                )
    model.eval().save_pretrained(output)
    save_processor(output)
    written = SwinForImageClassification.from_pretrained(output, local_files_only=True).eval()
    for objects in (1, 2):
        print(f"{objects} objects: {accuracy(written, objects, range(500_000, 500_500))} right", flush=True)


def restore_shifts(model: SwinForImageClassification) -> None:
    """Gives every layer the shift and the window that it was built with: of an image no larger than a window,
    transformers' layers forget theirs, and a model that is loaded has them again."""
    built = build_swin(GRID)
    for part, like in zip(model.modules(), built.modules(), strict=True):
        if hasattr(part, "shift_size"):
            part.shift_size, part.window_size = like.shift_size, like.window_size


def _loss(model: SwinForImageClassification, head: nn.Module, batch: Batch) -> Tensor:
    output = model(batch.pixel_values, output_hidden_states=True)
    loss = class_loss(output.logits, batch.class_targets)
    for states in output.hidden_states[1:]:
        loss = loss + patch_loss(head(states), batch.patch_targets)
    return loss


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.swin_model.train", description="Train a windowed model.")
    add = parser.add_argument
    add("--output", type=Path, default=Path("swin-model"), help="folder to write (default: %(default)s)")
    add("--seed", type=int, default=0, help="seed of weights and order (default: %(default)s)")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    train(arguments.output, arguments.seed, STAGES)


if __name__ == "__main__":
    main()
