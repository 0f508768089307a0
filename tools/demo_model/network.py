"""The demo model before training: its size and its first weights."""

from __future__ import annotations

from typing import Final

from transformers import ViTConfig, ViTForImageClassification

from captum_gmar.demo.patches import GRID, PATCH
from captum_gmar.demo.scenes import CLASSES
from tools.training.networks import initialise

WIDTH: Final = 64


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
        id2label=dict(enumerate(CLASSES)),
        label2id={name: index for index, name in enumerate(CLASSES)},
    )
    model = ViTForImageClassification(config)
    initialise(model)
    # Crops take their positions from anywhere in the scene, so only a model of whole scenes can learn them.
    model.vit.embeddings.position_embeddings.requires_grad_(side == GRID)
    return model
