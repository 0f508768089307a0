"""Train the judge from scratch, on one thread: `python -m tools.judge_model.train --output folder`.

As :mod:`tools.demo_model.train`: crops first, then whole scenes, with throw-away heads that ask every patch what it
shows.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import torch
from torch import Tensor, nn
from transformers import Dinov2WithRegistersForImageClassification

from captum_gmar.demo.patches import GRID
from tools.demo_model.batches import QUESTIONS, Batch, Pool, draw_batch, render_pool
from tools.demo_model.fitting import Stage, descend
from tools.demo_model.gradients import class_loss, patch_loss
from tools.demo_model.measures import accuracy
from tools.demo_model.train import save_processor
from tools.judge_model.network import LAYERS, PREFIX, WIDTH, build_judge, grow, position_table, set_positions
from tools.judge_model.optimizing import build_optimizers

FIRST_SEED: Final = 3_000_000  # of the scenes that it is trained on
SCENES: Final = 24_000
STAGES: Final = (
    Stage(side=7, scenes=SCENES, steps=5_000, batch_size=48, rates=(3e-3, 1e-3)),
    Stage(side=GRID, scenes=SCENES, steps=2_000, batch_size=16, rates=(1e-3, 1e-5)),
)
_REPORT_EVERY: Final = 300  # steps


def train(output: Path, seed: int, stages: Sequence[Stage]) -> None:
    """Train a judge and write it and its image processor into a folder."""
    torch.manual_seed(seed)
    pool = render_pool(FIRST_SEED, max(stage.scenes for stage in stages), workers=1)
    model, head = build_judge(stages[0].side), nn.Sequential(nn.LayerNorm(WIDTH), nn.Linear(WIDTH, sum(QUESTIONS)))
    began = time.perf_counter()
    for stage in stages:
        if stage.side == GRID:
            model = grow(model)
        for step, loss in enumerate(_fit(model.train(), head, pool, stage, seed), 1):
            if step % _REPORT_EVERY == 0:
                print(
                    f"side {stage.side}  step {step}  {time.perf_counter() - began:.0f} s  loss {loss:.3f}", flush=True
                )
                model.save_pretrained(output)
    model.eval().save_pretrained(output)
    save_processor(output)
    for objects in (1, 2):
        print(f"{objects} objects: {accuracy(model, objects, range(500_000, 500_500))} right", flush=True)


def _fit(
    model: Dinov2WithRegistersForImageClassification, head: nn.Module, pool: Pool, stage: Stage, seed: int
) -> Iterator[float]:
    generator = torch.Generator().manual_seed(seed)

    def draw_loss() -> Tensor:
        if stage.side < GRID:  # crops pretend to come from one random place of the scene
            row, column = torch.randint(GRID - stage.side + 1, (2,), generator=generator).tolist()
            set_positions(model, position_table()[row : row + stage.side, column : column + stage.side])
        return _loss(model, head, draw_batch(pool, stage.batch_size, stage.side, generator))

    return descend(build_optimizers(model, head), stage, draw_loss)


def _loss(model: nn.Module, head: nn.Module, batch: Batch) -> Tensor:
    output = model(batch.pixel_values, output_hidden_states=True)
    loss = class_loss(output.logits, batch.class_targets)
    for layer in (LAYERS - 1, LAYERS):
        loss = loss + patch_loss(head(output.hidden_states[layer][:, PREFIX:]), batch.patch_targets)
    return loss


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.judge_model.train", description="Train the judge.")
    add = parser.add_argument
    add("--output", type=Path, default=Path("judge-model"), help="folder to write (default: %(default)s)")
    add("--seed", type=int, default=0, help="seed of weights and order (default: %(default)s)")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    train(arguments.output, arguments.seed, STAGES)


if __name__ == "__main__":
    main()
