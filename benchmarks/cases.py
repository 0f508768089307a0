"""Which models and images are measured: vision transformers with random weights, on which the cost does not depend."""

from typing import NamedTuple

import torch
from torch import Tensor
from transformers import ViTConfig, ViTForImageClassification

PATCH = 16
SIZES = {
    "ViT-Ti": {"hidden_size": 192, "num_attention_heads": 3, "intermediate_size": 768},
    "ViT-B": {},
    "ViT-L": {"hidden_size": 1024, "num_attention_heads": 16, "intermediate_size": 4096, "num_hidden_layers": 24},
}


class Case(NamedTuple):
    """A model and a batch of images."""

    model: str
    pixels: int  # of a side
    batch: int = 1
    precision: str = "float32"
    layers: int | None = None  # if not as many as the model has

    def __str__(self) -> str:
        depth = "" if self.layers is None else f" of {self.layers} layers"
        return f"{self.model}/{PATCH}{depth}, {self.pixels}², batch {self.batch}, {self.precision}"

    @property
    def patches(self) -> int:
        return (self.pixels // PATCH) ** 2

    @property
    def tokens(self) -> int:
        return self.patches + 1

    def build(self, device: str) -> tuple[ViTForImageClassification, Tensor]:
        """The model, as it comes when it is loaded, and pixel values."""
        torch.manual_seed(0)
        depth = {} if self.layers is None else {"num_hidden_layers": self.layers}
        config = ViTConfig(image_size=self.pixels, patch_size=PATCH, num_labels=1000, **{**SIZES[self.model], **depth})
        precision = getattr(torch, self.precision)
        model = ViTForImageClassification(config).eval().to(device, precision)
        return model, torch.randn(self.batch, 3, self.pixels, self.pixels).to(device, precision)
