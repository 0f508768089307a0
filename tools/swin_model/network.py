"""The windowed model before training: Swin of two stages, whose second has a token for each patch of a scene."""

from __future__ import annotations

from typing import Final

from transformers import SwinConfig, SwinForImageClassification

from captum_gmar.demo.patches import PATCH
from captum_gmar.demo.scenes import CLASSES
from tools.training.networks import initialise

WIDTH: Final = 96  # of the second stage
STATES: Final = (1, 2)  # hidden states with a token for each patch


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
        id2label=dict(enumerate(CLASSES)),
        label2id={name: index for index, name in enumerate(CLASSES)},
    )
    model = SwinForImageClassification(config)
    initialise(model)
    return model
