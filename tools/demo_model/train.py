"""Train the demo model from scratch, on one thread: `python -m tools.demo_model.train --output folder`.

The first stage sees crops of the scenes, a quarter of their area with an object in it, because a step on them costs a
quarter; the second sees whole scenes. In both, throw-away heads ask every patch which class, form and texture it shows.
That teaches patches to recognise, and leaves CLS to gather what they found.

The built-in model comes from an earlier form of this script, which shared each step among processes and drew its
batches in another order. Stages, losses and optimizers are the same.
"""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
import torch
import transformers
from torch import nn
from transformers import ViTConfig, ViTForImageClassification

from captum_gmar.demo.patches import GRID, PATCH
from captum_gmar.demo.scenes import CLASSES
from tools.demo_model.card import write_card
from tools.demo_model.measures import accuracy
from tools.training.loop import Stage, report, report_losses, run_command
from tools.training.networks import grow, initialise, label_maps, place_crop
from tools.training.scenes import fit_scenes, question_head, render_pool, save_processor

WIDTH: Final = 64
TRAINING_SEEDS: Final = 1_000_000  # scenes of smaller seeds are never trained on
SPARED: Final = 2**4  # of the last digits of a float32
QUESTIONED_LAYERS: Final = (4, 6)  # whose patch tokens answer the questions, counted from 1

STAGES: Final = (
    Stage(side=7, scenes=24_000, steps=4_000, batch_size=64, rates=(3e-3, 1e-3)),
    Stage(side=GRID, scenes=24_000, steps=4_500, batch_size=32, rates=(1e-3, 1e-5)),
)


def build_model(side: int) -> ViTForImageClassification:
    """Return a model for images `side` patches wide and high, with random weights."""
    config = ViTConfig(
        hidden_size=WIDTH,
        num_hidden_layers=6,
        num_attention_heads=4,
        intermediate_size=3 * WIDTH,
        image_size=side * PATCH,
        patch_size=PATCH,
        initializer_range=0.05,
        **label_maps(CLASSES),
    )
    model = ViTForImageClassification(config)
    initialise(model)
    # Crops take their positions from anywhere in the scene, so only a model of whole scenes can learn them.
    model.vit.embeddings.position_embeddings.requires_grad_(side == GRID)
    return model


def train(output: Path, seed: int = 0, stages: Sequence[Stage] = STAGES) -> None:
    """Train a model and write it, its image processor, its training record and its card into a folder."""
    began = time.perf_counter()
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    model, heads = build_model(stages[0].side), {layer: question_head(WIDTH) for layer in QUESTIONED_LAYERS}
    seeds = range(TRAINING_SEEDS * (1 + seed), TRAINING_SEEDS * (1 + seed) + sum(stage.scenes for stage in stages))
    first_seed = seeds.start
    for stage in stages:
        model = grow(model, build_model(GRID)) if stage.side == GRID else model
        pool, move = render_pool(first_seed, stage.scenes), partial(place_crop, model, stage.side)
        for _ in report_losses(fit_scenes(model, heads, 1, pool, stage, generator, move), stage):
            model.save_pretrained(output)
        first_seed += stage.scenes
    round_weights(model)
    model.eval().save_pretrained(output)
    save_processor(output)
    for objects in (1, 2):
        report(f"{objects} objects: {accuracy(model, objects, range(300))} right")
    _save_record(output, seed, seeds, stages, time.perf_counter() - began)
    write_card(output)


@torch.no_grad()
def round_weights(model: nn.Module) -> None:
    """Round every weight to its 20 leading binary digits, so that the file can be packed: to a millionth of itself."""
    for parameter in model.parameters():
        bits = parameter.view(torch.int32)
        bits.copy_((bits + SPARED // 2) & -SPARED)


def _save_record(output: Path, seed: int, seeds: range, stages: Sequence[Stage], seconds: float) -> None:
    """Keep what the card must tell of the training, so that the card can be written again without it."""
    record = {
        "how": f"`python -m tools.demo_model.train --seed {seed}`",
        "first_scene_seed": seeds.start,
        "last_scene_seed": seeds[-1],
        "minutes": round(seconds / 60, 1),
        "processes": 1,
        "steps": ", then ".join(f"{stage.steps} steps of {stage.batch_size} images" for stage in stages),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }
    (output / "training.json").write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    run_command(train, "demo")
