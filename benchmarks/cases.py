"""Which models and images are measured: with random weights, on which the cost does not depend."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import (
    PreTrainedModel,
    SwinConfig,
    SwinForImageClassification,
    VideoMAEConfig,
    VideoMAEForVideoClassification,
    ViTConfig,
    ViTForImageClassification,
)

PATCH = 16
SIZES = {
    "tiny": {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 32, "patch_size": 8, "num_labels": 10},
    "ViT-Ti": {"hidden_size": 192, "num_attention_heads": 3, "intermediate_size": 768},
    "ViT-B": {},
    "ViT-L": {"hidden_size": 1024, "num_attention_heads": 16, "intermediate_size": 4096, "num_hidden_layers": 24},
}
FRAMES = 16  # of a video


def _build_vit(name: str, pixels: int, **options: Any) -> PreTrainedModel:
    sizes = {"image_size": pixels, "patch_size": PATCH, "num_labels": 1000, **SIZES[name], **options}
    return ViTForImageClassification(ViTConfig(**sizes))


def _build_swin(pixels: int) -> PreTrainedModel:
    """Swin-T, whose sizes transformers takes by default."""
    return SwinForImageClassification(SwinConfig(image_size=pixels, num_labels=1000))


def _build_videomae(pixels: int) -> PreTrainedModel:
    """VideoMAE-S."""
    size = {"hidden_size": 384, "num_attention_heads": 6, "intermediate_size": 1536, "num_hidden_layers": 12}
    return VideoMAEForVideoClassification(
        VideoMAEConfig(image_size=pixels, patch_size=PATCH, num_frames=FRAMES, num_labels=400, **size)
    )


class Other(NamedTuple):
    """A model that is no ViT.

    Attributes:
        build: from the pixels of a side.
        frames: (frames,) of a video; of images none.
        patch: pixels of a side.
    """

    build: Callable[[int], PreTrainedModel]
    frames: tuple[int, ...] = ()
    patch: int = PATCH


OTHERS = {"Swin-T": Other(_build_swin, patch=4), "VideoMAE-S": Other(_build_videomae, (FRAMES,))}


class Case(NamedTuple):
    """A model and a batch of images."""

    model: str
    pixels: int  # of a side
    batch: int = 1
    precision: str = "float32"
    layers: int | None = None  # if not as many as the model has

    def __str__(self) -> str:
        depth = "" if self.layers is None else f" of {self.layers} layers"
        patch = OTHERS[self.model].patch if self.model in OTHERS else PATCH
        return f"{self.model}/{patch}{depth}, {self.pixels}², batch {self.batch}, {self.precision}"

    @property
    def patches(self) -> int:
        return (self.pixels // PATCH) ** 2

    @property
    def tokens(self) -> int:
        return self.patches + 1

    def build(self, device: str) -> tuple[PreTrainedModel, Tensor]:
        """Build the model, in its state after loading, and pixel values."""
        torch.manual_seed(0)
        precision = getattr(torch, self.precision)
        frames: tuple[int, ...] = ()
        if self.model in OTHERS:
            model, frames = OTHERS[self.model].build(self.pixels), OTHERS[self.model].frames
        else:
            depth = {} if self.layers is None else {"num_hidden_layers": self.layers}
            model = _build_vit(self.model, self.pixels, **depth)
        inputs = torch.randn(self.batch, *frames, 3, self.pixels, self.pixels)
        return model.eval().to(device, precision), inputs.to(device, precision)
