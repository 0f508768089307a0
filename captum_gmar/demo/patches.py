"""Pixel values and patches of scenes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from captum_gmar.demo.drawing import SIZE
from captum_gmar.demo.scenes import Scene

PATCH: Final = 8  # side of a patch in pixels
GRID: Final = SIZE // PATCH


def scene_pixel_values(scenes: Sequence[Scene]) -> Tensor:
    """Return the pixel values of scenes (N, 3, height, width) from -1 to 1."""
    return to_pixel_values(torch.from_numpy(np.stack([scene.image for scene in scenes])))


def to_pixel_values(images: Tensor) -> Tensor:
    """Convert uint8 images (N, height, width, 3) to pixel values (N, 3, height, width) from -1 to 1."""
    return (images.permute(0, 3, 1, 2).float() / 127.5 - 1).contiguous()


def patch_shares(mask: NDArray[np.bool_]) -> Tensor:
    """Return the share of each patch (GRID * GRID,) in a mask (height, width)."""
    return torch.from_numpy(mask).float().reshape(GRID, PATCH, GRID, PATCH).mean(dim=(1, 3)).flatten()
