"""The demo model before training: its size, its first weights, and how it grows from crops to scenes."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor, nn
from transformers import ViTConfig, ViTForImageClassification

from captum_gmar.demo.patches import GRID, PATCH
from captum_gmar.demo.scenes import CLASSES

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


def initialise(model: nn.Module, key_heads: int = 1) -> None:
    """Let patch embeddings keep the image's contrast, and tokens attend to tokens like themselves.

    Where several heads share their keys, there are so many heads of keys, and the first of those that share counts.
    """
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d):
            nn.init.normal_(module.weight, std=module.weight[0].numel() ** -0.5)
        elif isinstance(module, nn.Linear) and name.endswith(("query", "q_proj")):
            nn.init.normal_(module.weight, std=0.1)
            key = model.get_submodule(name.replace("query", "key").replace("q_proj", "k_proj"))
            assert isinstance(key, nn.Linear)
            sharing = len(module.weight) // len(key.weight)
            queries = module.weight.detach().unflatten(0, (key_heads, sharing, -1))[:, 0].flatten(0, 1)
            key.weight.data = queries + 0.03 * torch.randn_like(queries)


def position_table() -> Tensor:
    """Return sines and cosines of each patch's column and row, (GRID, GRID, WIDTH)."""
    frequencies = 2.0 * 20.0 ** -(torch.arange(WIDTH // 4) / (WIDTH // 4))
    waves = torch.arange(GRID)[:, None] * frequencies
    axis = torch.cat([waves.sin(), waves.cos()], dim=1)  # (GRID, WIDTH / 2)
    columns, rows = axis.expand(GRID, -1, -1), axis[:, None].expand(-1, GRID, -1)
    return torch.cat([columns, rows], dim=2)


def set_positions(model: ViTForImageClassification, positions: Tensor) -> None:
    """Write positions of shape (rows, columns, WIDTH) over the model's position embeddings of its patches."""
    model.vit.embeddings.position_embeddings.data[0, 1:] = positions.flatten(0, 1)


def grow(model: ViTForImageClassification) -> ViTForImageClassification:
    """Return a model for whole scenes with the weights of a model for crops."""
    grown = build_model(GRID)
    positions = "vit.embeddings.position_embeddings"
    weights = model.state_dict()
    cls_position = weights.pop(positions)[0, 0]
    grown.load_state_dict(weights, strict=False)
    grown.get_parameter(positions).data[0, 0] = cls_position
    set_positions(grown, position_table())
    return grown
