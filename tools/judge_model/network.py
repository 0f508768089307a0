"""The judge before training: registers, SwiGLU, and a head that reads the mean of the patch tokens alone."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor, nn
from transformers import Dinov2WithRegistersConfig, Dinov2WithRegistersForImageClassification

from captum_gmar.demo.patches import GRID, PATCH
from captum_gmar.demo.scenes import CLASSES

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


def initialise(model: nn.Module) -> None:
    """Let patch embeddings keep the image's contrast, and tokens attend to tokens like themselves."""
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d):
            nn.init.normal_(module.weight, std=module.weight[0].numel() ** -0.5)
        elif isinstance(module, nn.Linear) and name.endswith("query"):
            nn.init.normal_(module.weight, std=0.1)
            key = model.get_submodule(name.replace("query", "key"))
            assert isinstance(key, nn.Linear)
            key.weight.data = module.weight.detach() + 0.03 * torch.randn_like(module.weight)


def read_patches_alone(model: Dinov2WithRegistersForImageClassification) -> None:
    """Take the CLS token, the first half of what the head reads, out of it, and leave it out in training."""
    of_patches = torch.arange(2 * WIDTH) >= WIDTH
    weight = model.classifier.weight
    weight.data *= of_patches
    weight.register_hook(lambda gradient: gradient * of_patches)


def set_positions(model: Dinov2WithRegistersForImageClassification, positions: Tensor) -> None:
    """Write positions of shape (rows, columns, WIDTH) over the model's position embeddings of its patches."""
    model.dinov2_with_registers.embeddings.position_embeddings.data[0, 1:] = positions.flatten(0, 1)


def position_table() -> Tensor:
    """Return sines and cosines of each patch's column and row, (GRID, GRID, WIDTH)."""
    frequencies = 2.0 * 20.0 ** -(torch.arange(WIDTH // 4) / (WIDTH // 4))
    waves = torch.arange(GRID)[:, None] * frequencies
    axis = torch.cat([waves.sin(), waves.cos()], dim=1)
    return torch.cat([axis.expand(GRID, -1, -1), axis[:, None].expand(-1, GRID, -1)], dim=2)


def grow(model: Dinov2WithRegistersForImageClassification) -> Dinov2WithRegistersForImageClassification:
    """Return a model for whole scenes with the weights of a model for crops."""
    grown, positions = build_judge(GRID), "dinov2_with_registers.embeddings.position_embeddings"
    weights = model.state_dict()
    cls_position = weights.pop(positions)[0, 0]
    grown.load_state_dict(weights, strict=False)
    grown.get_parameter(positions).data[0, 0] = cls_position
    set_positions(grown, position_table())
    return grown
