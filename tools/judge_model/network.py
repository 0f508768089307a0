"""The judge before training: registers, SwiGLU, and a head that reads the mean of the patch tokens alone."""

from __future__ import annotations

from typing import Final

import torch
from transformers import Dinov2WithRegistersConfig, Dinov2WithRegistersForImageClassification

from captum_gmar.demo.patches import GRID, PATCH
from captum_gmar.demo.scenes import CLASSES
from tools.training.networks import initialise

WIDTH: Final = 72
LAYERS: Final = 5
REGISTERS: Final = 4
PREFIX: Final = 1 + REGISTERS  # tokens before those of the patches


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
        id2label=dict(enumerate(CLASSES)),
        label2id={name: index for index, name in enumerate(CLASSES)},
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
