"""Train the judge from scratch, on one thread: `python -m tools.judge_model.train --output folder`.

Crops come first, then whole scenes. A throw-away head asks every patch what it shows.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Final

import torch
from transformers import Dinov2WithRegistersConfig, Dinov2WithRegistersForImageClassification

from captum_gmar.demo.patches import GRID, PATCH
from captum_gmar.demo.scenes import CLASSES
from tools.demo_model.measures import accuracy
from tools.training.loop import Stage, report, report_losses, run_command
from tools.training.networks import grow, initialise, label_maps, place_crop
from tools.training.scenes import fit_scenes, question_head, render_pool, save_processor

WIDTH: Final = 72
LAYERS: Final = 5
REGISTERS: Final = 4
PREFIX: Final = 1 + REGISTERS  # tokens before those of the patches
FIRST_SEED: Final = 3_000_000  # of the scenes that it is trained on
SCENES: Final = 24_000
STAGES: Final = (
    Stage(side=7, scenes=SCENES, steps=5_000, batch_size=48, rates=(3e-3, 1e-3)),
    Stage(side=GRID, scenes=SCENES, steps=2_000, batch_size=16, rates=(1e-3, 1e-5)),
)


def build_judge(side: int) -> Dinov2WithRegistersForImageClassification:
    """Return a model for images `side` patches wide and high, with random weights."""
    config = Dinov2WithRegistersConfig(
        hidden_size=WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        mlp_ratio=4,
        use_swiglu_ffn=True,
        num_register_tokens=REGISTERS,
        image_size=side * PATCH,
        patch_size=PATCH,
        initializer_range=0.05,
        **label_maps(CLASSES),
    )
    model = Dinov2WithRegistersForImageClassification(config)
    initialise(model)
    read_patches_alone(model)
    embeddings = model.dinov2_with_registers.embeddings
    # Crops take their positions from anywhere in the scene, so only a model of whole scenes can learn them.
    embeddings.position_embeddings.requires_grad_(side == GRID)
    embeddings.mask_token.requires_grad_(False)
    return model


def read_patches_alone(model: Dinov2WithRegistersForImageClassification) -> None:
    """Take the CLS token, the first half of what the head reads, out of it, and leave it out in training."""
    patch_half = torch.arange(2 * WIDTH) >= WIDTH
    weight = model.classifier.weight
    weight.data *= patch_half
    weight.register_hook(lambda gradient: gradient * patch_half)


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
