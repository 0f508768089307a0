"""Families of models whose attention is not over one patch grid of an image, small and random. One more is a row.

Each says where the values of its attention lie, written down from the papers: windows cut out by hand, keys that stand
for a block of tokens, tokens of a video in time.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
import transformers
from torch import Tensor, nn

LABELS = 5
Place = tuple[
    tuple[int, ...], Tensor
]  # the shape of a grid, and of each sequence of an example its tokens' places on it


class FieldFamily(NamedTuple):
    make: Callable[[], nn.Module]
    shape: tuple[int, ...]  # of one input
    stages: Callable[[nn.Module], Sequence[Sequence[nn.Module]]]  # no layers: the gradient is the model's
    places: Callable[[], list[Place]]  # of each softmax, in the order of the calls; tokens of no place are -1
    passes: Callable[[nn.Module, Tensor], Tensor] = lambda layer, tokens: tokens  # what passes a layer by
    arguments: tuple[Any, ...] = ()


def in_order(shape: tuple[int, ...], before: int = 0, behind: int = 0) -> Place:
    """One sequence: tokens of no place, the places row by row, and tokens of no place."""
    count = int(torch.tensor(shape).prod())
    return shape, torch.tensor([[-1] * before + list(range(count)) + [-1] * behind])


def windows(rows: int, columns: int, size: int, shift: int) -> Place:
    """Swin's: the grid is padded at the bottom and right, rolled up and left, and cut into windows."""
    high, wide = (-(-number // size) * size for number in (rows, columns))
    sequences = []
    for top in range(0, high, size):
        for left in range(0, wide, size):
            window = []
            for row in range(top, top + size):
                for column in range(left, left + size):
                    y, x = (row + shift) % high, (column + shift) % wide
                    window.append(y * columns + x if y < rows and x < columns else -1)
            sequences.append(window)
    return (rows, columns), torch.tensor(sequences)


def unfolded(rows: int, columns: int, patch: int = 2) -> Place:
    """MobileViT's: of each patch the first pixels attend to one another, and the second ones, and so on."""
    sequences = [
        [(top + y) * columns + left + x for top in range(0, rows, patch) for left in range(0, columns, patch)]
        for y in range(patch)
        for x in range(patch)
    ]
    return (rows, columns), torch.tensor(sequences)


def mask_units(side: int, pools: int, units: int) -> Place:
    """Hiera's: the grid is halved so many times, offsets before places; then every so many-th token is of one unit."""
    order = torch.arange(side * side).view(side, side)
    for _ in range(pools):
        order = torch.stack([order[..., y::2, x::2] for y in (0, 1) for x in (0, 1)], -3)
    return (side, side), order.reshape(-1, units).mT


def swin(name: str, **changes: Any) -> nn.Module:
    config = {"patch_size": 2, "embed_dim": 8, "depths": [2, 1], "num_heads": [2, 2], "window_size": 4}
    kind = getattr(transformers, f"{name}Config")
    return getattr(transformers, f"{name}ForImageClassification")(
        kind(**{**config, "image_size": 20, "num_labels": LABELS, **changes})
    )


def swin_places() -> list[Place]:
    """Of 20x28 pixels: 10x14 patches, and 5x7 after merging."""
    return [windows(10, 14, 4, 0), windows(10, 14, 4, 2), windows(5, 7, 4, 0)]


def pyramid(name: str, **changes: Any) -> nn.Module:
    sizes = {"hidden_sizes": [8, 8, 16, 16], "depths": [1, 2, 1, 1], "num_attention_heads": [1, 2, 2, 2]}
    config = getattr(transformers, f"{name}Config")(**{**sizes, "mlp_ratios": [2] * 4, "num_labels": LABELS, **changes})
    return getattr(transformers, f"{name}ForImageClassification")(config)


def pyramid_places(last: Place) -> list[Place]:
    """Of 64x64 pixels: whatever the stage, its keys stand for blocks of 32x32 pixels."""
    return [in_order((2, 2))] * 4 + [last]


def segformer_stages(model: nn.Module) -> Any:
    base = model.segformer  # in transformers 5, and 4
    return [stage.blocks for stage in base.stages] if hasattr(base, "stages") else base.encoder.block


def hiera_passes(layer: nn.Module, tokens: Tensor) -> Tensor:
    """What a layer adds to: of layers that pool, the largest of four tokens, projected."""
    if layer.hidden_size == layer.hidden_size_output:
        return tokens
    return layer.proj(layer.layernorm_before(tokens)).unflatten(1, (layer.query_stride, -1)).amax(1)


FIELD_FAMILIES = {
    name: FieldFamily(
        lambda name=name: swin(name),
        (3, 20, 28),
        lambda model: [s.blocks for s in _base(model).encoder.layers],
        swin_places,
    )
    for name in ("Swin", "Swinv2", "DonutSwin")
} | {
    "PVT": FieldFamily(
        lambda: pyramid("Pvt", image_size=64),
        (3, 64, 64),
        lambda model: [],  # the class token joins in the last stage
        lambda: pyramid_places(in_order((2, 2), before=1)),
    ),
    "PVTv2": FieldFamily(
        lambda: pyramid("PvtV2", image_size=64),
        (3, 64, 64),
        lambda model: [layer.blocks for layer in model.pvt_v2.encoder.layers],
        lambda: pyramid_places(in_order((2, 2))),
    ),
    "SegFormer": FieldFamily(
        lambda: pyramid("Segformer"),
        (3, 64, 64),
        segformer_stages,
        lambda: pyramid_places(in_order((2, 2))),
    ),
    "CvT": FieldFamily(
        lambda: transformers.CvtForImageClassification(
            transformers.CvtConfig(embed_dim=[8, 8, 16], num_heads=[1, 2, 2], depth=[1, 2, 3], num_labels=LABELS)
        ),
        (3, 64, 64),
        lambda model: [],  # the same
        lambda: [in_order((8, 8)), *[in_order((4, 4))] * 2, *[in_order((2, 2), before=1)] * 3],
    ),
    "LeViT": FieldFamily(
        lambda: transformers.LevitForImageClassification(
            transformers.LevitConfig(
                image_size=64,
                hidden_sizes=[8, 16, 24],
                num_attention_heads=[1, 2, 2],
                depths=[1, 1, 1],
                key_dim=[4] * 3,
                num_labels=LABELS,
            )
        ),
        (3, 64, 64),
        lambda model: [],
        lambda: [*[in_order((4, 4))] * 2, *[in_order((2, 2))] * 2, in_order((1, 1))],
    ),
    "MobileViT": FieldFamily(
        lambda: transformers.MobileViTForImageClassification(
            transformers.MobileViTConfig(
                image_size=64,
                hidden_sizes=[8, 12, 16],
                neck_hidden_sizes=[4, 8, 8, 8, 8, 8, 16],
                num_attention_heads=2,
                num_labels=LABELS,
            )
        ),
        (3, 64, 64),
        lambda model: [
            layer.transformer.layer for layer in model.mobilevit.encoder.layer if hasattr(layer, "transformer")
        ],
        lambda: [*[unfolded(8, 8)] * 2, *[unfolded(4, 4)] * 4, *[unfolded(2, 2)] * 3],
    ),
    "Hiera": FieldFamily(
        lambda: transformers.HieraForImageClassification(
            transformers.HieraConfig(
                image_size=[64, 64],
                embed_dim=8,
                depths=[1, 2, 1, 1],
                num_heads=[1, 2, 2, 2],
                mlp_ratio=2.0,
                num_labels=LABELS,
            )
        ),
        (3, 64, 64),
        lambda model: [stage.layers for stage in model.hiera.encoder.stages],
        lambda: [*[mask_units(16, 3, 4)] * 2, *[mask_units(8, 2, 4)] * 2, mask_units(4, 1, 1)],
        hiera_passes,
    ),
}


def _base(model: nn.Module) -> Any:
    return getattr(model, model.base_model_prefix)
