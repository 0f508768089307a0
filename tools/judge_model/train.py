"""Train the judge from scratch, on one thread: `python -m tools.judge_model.train --output folder`.

Crops come first, then whole scenes. A throw-away head asks every patch what it shows.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Final

import torch

from captum_gmar.demo.patches import GRID
from tools.demo_model.measures import accuracy
from tools.judge_model.network import LAYERS, PREFIX, WIDTH, build_judge
from tools.training.loop import Stage, report, report_losses, run_command
from tools.training.networks import grow, place_crop
from tools.training.scenes import fit_scenes, question_head, render_pool, save_processor

FIRST_SEED: Final = 3_000_000  # of the scenes that it is trained on
SCENES: Final = 24_000
STAGES: Final = (
    Stage(side=7, scenes=SCENES, steps=5_000, batch_size=48, rates=(3e-3, 1e-3)),
    Stage(side=GRID, scenes=SCENES, steps=2_000, batch_size=16, rates=(1e-3, 1e-5)),
)


def train(output: Path, seed: int, stages: Sequence[Stage] = STAGES) -> None:
    """Train a judge and write it and its image processor into a folder."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    pool = render_pool(FIRST_SEED, max(stage.scenes for stage in stages))
    model, head = build_judge(stages[0].side), question_head(WIDTH)
    for stage in stages:
        model = grow(model, build_judge(GRID)) if stage.side == GRID else model
        heads = {LAYERS - 1: head, LAYERS: head}
        losses = fit_scenes(model, heads, PREFIX, pool, stage, generator, partial(place_crop, model, stage.side))
        for _ in report_losses(losses, stage):
            model.save_pretrained(output)
    model.eval().save_pretrained(output)
    save_processor(output)
    for objects in (1, 2):
        report(f"{objects} objects: {accuracy(model, objects, range(500_000, 500_500))} right")


if __name__ == "__main__":
    run_command(train, "judge")
