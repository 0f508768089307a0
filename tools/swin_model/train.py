"""Train a windowed classifier of built-in scenes, on one thread: `python -m tools.swin_model.train --output folder`.

Crops come first, then whole scenes. A throw-away head asks every patch what it shows. The weights fit any size, as the
positions are those within a window.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import torch
from transformers import SwinConfig, SwinForImageClassification

from captum_gmar.demo.patches import GRID, PATCH
from captum_gmar.demo.scenes import CLASSES
from tools.demo_model.measures import accuracy
from tools.training.loop import Stage, report, report_losses, run_command
from tools.training.networks import initialise, label_maps
from tools.training.scenes import fit_scenes, question_head, render_pool, save_processor

WIDTH: Final = 96  # of the second stage
STATES: Final = (1, 2)  # hidden states with a token for each patch
FIRST_SEED: Final = 4_000_000  # of the scenes that it is trained on
SCENES: Final = 12_000
STAGES: Final = (
    Stage(side=7, scenes=SCENES, steps=2_600, batch_size=48, rates=(3e-3, 1e-3)),
    Stage(side=GRID, scenes=SCENES, steps=1_200, batch_size=16, rates=(1e-3, 1e-5)),
)


def build_swin(side: int) -> SwinForImageClassification:
    """Return a model for images `side` patches wide and high, with random weights, which fit any side."""
    config = SwinConfig(
        image_size=side * PATCH,
        patch_size=PATCH // 2,
        embed_dim=WIDTH // 2,
        depths=[2, 4],
        num_heads=[2, 4],
        window_size=7,
        mlp_ratio=3.0,
        drop_path_rate=0.0,
        initializer_range=0.05,
        **label_maps(CLASSES),
    )
    model = SwinForImageClassification(config)
    initialise(model)
    return model


def train(output: Path, seed: int, stages: Sequence[Stage] = STAGES) -> None:
    """Train a model and write it and its image processor into a folder."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    pool = render_pool(FIRST_SEED, max(stage.scenes for stage in stages))
    model, head = build_swin(GRID), question_head(WIDTH)
    for stage in stages:
        restore_shifts(model)
        for _ in report_losses(fit_scenes(model, dict.fromkeys(STATES, head), 0, pool, stage, generator), stage):
            pass
    model.eval().save_pretrained(output)
    save_processor(output)
    written = SwinForImageClassification.from_pretrained(output, local_files_only=True).eval()
    for objects in (1, 2):
        report(f"{objects} objects: {accuracy(written, objects, range(500_000, 500_500))} right")


def restore_shifts(model: SwinForImageClassification) -> None:
    """Give every layer the shift and the window that it was built with.

    Where an image is no larger than a window, transformers' layers forget theirs. A loaded model has them again.
    """
    built = build_swin(GRID)
    for part, like in zip(model.modules(), built.modules(), strict=True):
        if hasattr(part, "shift_size"):
            part.shift_size, part.window_size = like.shift_size, like.window_size


if __name__ == "__main__":
    run_command(train, "swin")
