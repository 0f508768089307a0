"""Removal of image patches by pixel values."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from captum_gmar.metrics._inputs import check_images, is_integer
from captum_gmar.metrics._outputs import ForwardFunc

__all__ = ["Blur", "Mean", "Noise", "PixelRemoval", "Removal", "Zero"]


class Removal(Protocol):
    """Protocol of a removal: a name, and a call that runs the model without some patches.

    :class:`PixelRemoval` replaces pixels; :class:`~captum_gmar.ablation.TokenRemoval` drops tokens inside the model.
    """

    @property
    def name(self) -> str:
        """Name in tables. Curves depend on the removal, so results carry its name."""

    def __call__(self, forward_func: ForwardFunc, inputs: Tensor, removed: Tensor) -> Tensor:
        """Run ``forward_func`` on every image without each of its sets of removed patches.

        Args:
            forward_func: returns the model's outputs for images.
            inputs: (N, C, H, W).
            removed: (N, S, rows, columns), True where a patch of H / rows × W / columns pixels is removed.

        Returns:
            Tensor: Outputs (N * S, ...), image by image.
        """


class PixelRemoval(ABC):
    """Removal that replaces pixels. Kept patches stay unchanged, bit for bit."""

    @property
    @abstractmethod
    def name(self) -> str:
        """Name in tables."""

    @abstractmethod
    def replacement(self, inputs: Tensor, removed: Tensor) -> Tensor:
        """Compute new pixels for inputs (N, C, H, W), which broadcast to (N, S, C, H, W)."""

    def perturb(self, inputs: Tensor, removed: Tensor) -> Tensor:
        """Return images (N, S, C, H, W): the inputs (N, C, H, W) without removed patches (N, S, rows, columns).

        Raises:
            TypeError: if ``inputs`` is not a tensor or ``removed`` not a boolean tensor.
            ValueError: if ``removed`` is not a grid of whole patches over the images.
        """
        check_removed(removed, inputs)
        pixels = to_pixels(removed, inputs)[:, :, None]
        return torch.where(pixels, self.replacement(inputs, removed).to(inputs), inputs[:, None])

    def __call__(self, forward_func: ForwardFunc, inputs: Tensor, removed: Tensor) -> Tensor:
        return forward_func(self.perturb(inputs, removed).flatten(0, 1))


@dataclass(frozen=True)
class Zero(PixelRemoval):
    """Removal that sets pixels to 0, the data set's mean colour for normalised images."""

    name = "zero"

    def replacement(self, inputs: Tensor, removed: Tensor) -> Tensor:
        """Return 0 as a scalar."""
        return inputs.new_zeros(())


@dataclass(frozen=True)
class Mean(PixelRemoval):
    """Removal that sets pixels to the image's mean colour."""

    name = "mean"

    def replacement(self, inputs: Tensor, removed: Tensor) -> Tensor:
        """Return mean colours (N, 1, C, 1, 1)."""
        return inputs.mean((2, 3), keepdim=True)[:, None]


@dataclass(frozen=True)
class Blur(PixelRemoval):
    r"""Removal that sets pixels to those of the blurred image.

    Along each axis, pixel j contributes to pixel i with weight :math:`e^{-(i-j)^2 / 2\sigma^2}`. Weights sum to 1 over
    the image, so no padding is needed.

    Args:
        sigma: standard deviation of the Gaussian in pixels. 10 makes photos of 224×224 pixels unrecognisable. RISE uses
            5 over 11×11 pixels, with which models still recognise many photos.

    Raises:
        ValueError: if ``sigma`` is not a positive, finite number.
    """

    sigma: float = 10.0

    def __post_init__(self) -> None:
        if not isinstance(self.sigma, int | float) or not 0 < self.sigma < math.inf:
            raise ValueError(f"sigma must be a positive, finite number of pixels, but got {self.sigma!r}.")

    @property
    def name(self) -> str:
        """Name with sigma."""
        return f"blur (sigma {self.sigma:g})"

    def replacement(self, inputs: Tensor, removed: Tensor) -> Tensor:
        """Return blurred images (N, 1, C, H, W)."""
        pixels = inputs.to(torch.promote_types(inputs.dtype, torch.float32))
        vertical, horizontal = (self._weights(size, pixels) for size in inputs.shape[2:])
        return (vertical @ pixels @ horizontal.T)[:, None]

    def _weights(self, size: int, like: Tensor) -> Tensor:
        """Return weights (size, size) whose rows sum to 1."""
        pixels = torch.arange(size, dtype=like.dtype, device=like.device)
        return (-((pixels[:, None] - pixels) ** 2) / (2 * self.sigma**2)).softmax(1)


@dataclass(frozen=True)
class Noise(PixelRemoval):
    """Removal that sets pixels to uniform noise between the image's lowest and highest value of the channel.

    Before scaling, the noise is the same for all images of a size.

    Args:
        seed: seed of the noise.

    Raises:
        ValueError: if ``seed`` is not an integer.
    """

    seed: int = 0

    def __post_init__(self) -> None:
        check_seed(self.seed)

    @property
    def name(self) -> str:
        """Name with the seed."""
        return f"noise (seed {self.seed})"

    def replacement(self, inputs: Tensor, removed: Tensor) -> Tensor:
        """Return noise images (N, 1, C, H, W)."""
        low, high = inputs.amin((2, 3), keepdim=True), inputs.amax((2, 3), keepdim=True)
        generator = torch.Generator().manual_seed(self.seed)
        noise = torch.rand(inputs.shape[1:], generator=generator).to(inputs)
        return (low + (high - low) * noise)[:, None]


def to_pixels(removed: Tensor, inputs: Tensor) -> Tensor:
    """Expand patches (N, S, rows, columns) to pixels (N, S, H, W)."""
    height, width = (size // cells for size, cells in zip(inputs.shape[2:], removed.shape[2:], strict=True))
    return removed.repeat_interleave(height, 2).repeat_interleave(width, 3)


def check_removed(removed: Tensor, inputs: Tensor) -> None:
    """Raise an error unless ``removed`` (N, S, rows, columns) is a grid of whole patches of inputs (N, C, H, W)."""
    check_images(inputs)
    if not isinstance(removed, Tensor) or removed.dtype != torch.bool:
        kind = removed.dtype if isinstance(removed, Tensor) else type(removed).__name__
        raise TypeError(f"removed must be a boolean tensor, True where a patch is removed, but got {kind}.")
    examples, _, height, width = inputs.shape
    if removed.dim() != 4 or not removed.numel() or len(removed) != examples:
        raise ValueError(f"removed must be ({examples} examples, sets, rows, columns), but got {tuple(removed.shape)}.")
    rows, columns = removed.shape[2:]
    if height % rows or width % columns:
        raise ValueError(f"removed must be of whole patches over {height}x{width} pixels, but got {rows}x{columns}.")


def check_seed(seed: object) -> None:
    """Raise a ValueError unless the seed is an integer."""
    if not is_integer(seed):
        raise ValueError(f"seed must be an integer, but got {seed!r}.")
