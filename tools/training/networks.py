"""First weights, and how a model for crops grows into one for whole scenes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from captum_gmar.demo.patches import GRID

Model = TypeVar("Model", bound=nn.Module)


def label_maps(names: Sequence[str]) -> dict[str, Any]:
    """Return the fields of a configuration that name its classes."""
    return {"id2label": dict(enumerate(names)), "label2id": {name: index for index, name in enumerate(names)}}


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


def position_table(width: int) -> Tensor:
    """Return sines and cosines of each patch's column and row, (GRID, GRID, width)."""
    frequencies = 2.0 * 20.0 ** -(torch.arange(width // 4) / (width // 4))
    waves = torch.arange(GRID)[:, None] * frequencies
    axis = torch.cat([waves.sin(), waves.cos()], dim=1)  # (GRID, width / 2)
    columns, rows = axis.expand(GRID, -1, -1), axis[:, None].expand(-1, GRID, -1)
    return torch.cat([columns, rows], dim=2)


def position_embeddings(model: nn.Module) -> nn.Parameter:
    """Return the position embeddings of CLS and patches, (1, 1 + patches, width)."""
    (found,) = (p for name, p in model.named_parameters() if name.endswith("position_embeddings"))
    return found


def place_crop(model: nn.Module, side: int, row: int, column: int) -> None:
    """Write the positions that a crop of `side` patches has at a place of the scene over the model's."""
    embeddings = position_embeddings(model).data
    table = position_table(embeddings.shape[-1])
    embeddings[0, 1:] = table[row : row + side, column : column + side].flatten(0, 1)


def grow(crops: nn.Module, scenes: Model) -> Model:
    """Return a new model for whole scenes with the weights of one for crops, and the table's positions."""
    weights, cls_position = crops.state_dict(), position_embeddings(crops).data[0, 0]
    (name,) = (name for name in weights if name.endswith("position_embeddings"))
    del weights[name]
    scenes.load_state_dict(weights, strict=False)
    position_embeddings(scenes).data[0, 0] = cls_position
    place_crop(scenes, GRID, 0, 0)
    return scenes
