"""Ways to take patches out of an image. What a curve shows depends on the way, so results carry its name."""

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
    """What the curves need of a way to remove patches: a name, and a call that runs the model without them.

    How that is done is the removal's own affair: by giving pixels other values (:class:`PixelRemoval`), or by taking
    the patches' tokens out of the model (:class:`~captum_gmar.ablation.TokenRemoval`).
    """

    @property
    def name(self) -> str:
        """How tables call it."""

    def __call__(self, forward_func: ForwardFunc, inputs: Tensor, removed: Tensor) -> Tensor:
        """Runs ``forward_func`` on every image without each of its sets of removed patches.

        Args:
            forward_func: returns the model's outputs for images.
            inputs: (N, C, H, W).
            removed: (N, S, rows, columns), True where a patch is removed; patches are H / rows × W / columns pixels.

        Returns:
            Tensor: The outputs (N * S, ...), those of the first image first.
        """


class PixelRemoval(ABC):
    """Removal by other pixels. Those of the patches that are kept stay as they are, bit for bit."""

    @property
    @abstractmethod
    def name(self) -> str:
        """How tables call it."""

    @abstractmethod
    def replacement(self, inputs: Tensor, removed: Tensor) -> Tensor:
        """What pixels of inputs (N, C, H, W) become if they are removed: broadcasts to (N, S, C, H, W)."""

    def perturb(self, inputs: Tensor, removed: Tensor) -> Tensor:
        """The images (N, S, C, H, W) that are left of inputs (N, C, H, W) without removed (N, S, rows, columns).

        Raises:
            TypeError: if ``inputs`` is no tensor or ``removed`` no boolean one.
            ValueError: if ``removed`` is no grid of whole patches over these images.
        """
        check_removed(removed, inputs)
        pixels = to_pixels(removed, inputs)[:, :, None]
        return torch.where(pixels, self.replacement(inputs, removed).to(inputs), inputs[:, None])

    def __call__(self, forward_func: ForwardFunc, inputs: Tensor, removed: Tensor) -> Tensor:
        return forward_func(self.perturb(inputs, removed).flatten(0, 1))


@dataclass(frozen=True)
class Zero(PixelRemoval):
    """Removed pixels become 0, which in images normalised by mean and deviation is the data set's mean colour."""

    @property
    def name(self) -> str:
        """As reports and pictures call it."""
        return "zero"

    def replacement(self, inputs: Tensor, removed: Tensor) -> Tensor:
        """What stands in the place of the pixels that are removed (N, C, H, W)."""
        return inputs.new_zeros(())


@dataclass(frozen=True)
class Mean(PixelRemoval):
    """Removed pixels become the mean colour of their image, channel by channel."""

    @property
    def name(self) -> str:
        """As reports and pictures call it."""
        return "mean"

    def replacement(self, inputs: Tensor, removed: Tensor) -> Tensor:
        """What stands in the place of the pixels that are removed (N, C, H, W)."""
        return inputs.mean((2, 3), keepdim=True)[:, None]


@dataclass(frozen=True)
class Blur(PixelRemoval):
    r"""Removed pixels become those of the blurred image: the Gaussian-weighted mean of all pixels around.

    Pixel j counts with weight :math:`e^{-(i-j)^2 / 2\sigma^2}` for pixel i, along each axis; weights are divided by
    their sum over the image, so nothing from beyond its border comes in.

    Args:
        sigma: of the Gaussian, in pixels. 10 takes the class out of photos of 224×224 pixels. RISE blurs with 5, over
            11×11 pixels, after which models still recognise many photos.
            Default: 10.0

    Raises:
        ValueError: if ``sigma`` is not a positive, finite number.
    """

    sigma: float = 10.0

    def __post_init__(self) -> None:
        if not isinstance(self.sigma, int | float) or not 0 < self.sigma < math.inf:
            raise ValueError(f"sigma must be a positive, finite number of pixels. Got {self.sigma!r} instead.")

    @property
    def name(self) -> str:
        """As reports and pictures call it."""
        return f"blur (sigma {self.sigma:g})"

    def replacement(self, inputs: Tensor, removed: Tensor) -> Tensor:
        """What stands in the place of the pixels that are removed (N, C, H, W)."""
        pixels = inputs.to(torch.promote_types(inputs.dtype, torch.float32))
        vertical, horizontal = (self._weights(size, pixels) for size in inputs.shape[2:])
        return (vertical @ pixels @ horizontal.T)[:, None]

    def _weights(self, size: int, like: Tensor) -> Tensor:
        """(size, size), rows summing to 1"""
        at = torch.arange(size, dtype=like.dtype, device=like.device)
        return (-((at[:, None] - at) ** 2) / (2 * self.sigma**2)).softmax(1)


@dataclass(frozen=True)
class Noise(PixelRemoval):
    """Removed pixels become uniform noise between the image's lowest and highest value of the channel.

    The noise before this scaling is the same for every image of a size, whatever batch it comes in.

    Args:
        seed: of the noise.
            Default: 0

    Raises:
        ValueError: if ``seed`` is not an integer.
    """

    seed: int = 0

    def __post_init__(self) -> None:
        check_seed(self.seed)

    @property
    def name(self) -> str:
        """As reports and pictures call it."""
        return f"noise (seed {self.seed})"

    def replacement(self, inputs: Tensor, removed: Tensor) -> Tensor:
        """What stands in the place of the pixels that are removed (N, C, H, W)."""
        low, high = inputs.amin((2, 3), keepdim=True), inputs.amax((2, 3), keepdim=True)
        generator = torch.Generator().manual_seed(self.seed)
        noise = torch.rand(inputs.shape[1:], generator=generator).to(inputs)
        return (low + (high - low) * noise)[:, None]


def to_pixels(removed: Tensor, inputs: Tensor) -> Tensor:
    """(N, S, rows, columns) → (N, S, H, W)"""
    height, width = (size // cells for size, cells in zip(inputs.shape[2:], removed.shape[2:], strict=True))
    return removed.repeat_interleave(height, 2).repeat_interleave(width, 3)


def check_removed(removed: Tensor, inputs: Tensor) -> None:
    """Raises an error unless ``removed`` is (N, S, rows, columns), with whole patches, over the inputs (N, C, H, W)."""
    check_images(inputs)
    if not isinstance(removed, Tensor) or removed.dtype != torch.bool:
        given = removed.dtype if isinstance(removed, Tensor) else type(removed).__name__
        raise TypeError(f"removed must be a boolean tensor, True where a patch is removed. Got {given} instead.")
    examples, _, height, width = inputs.shape
    if removed.dim() != 4 or not removed.numel() or len(removed) != examples:
        raise ValueError(
            f"Expected removed patches of shape (examples, sets, rows, columns) for {examples} examples but got "
            f"{tuple(removed.shape)}."
        )
    rows, columns = removed.shape[2:]
    if height % rows or width % columns:
        raise ValueError(
            f"Expected a grid of whole patches over the image of {height}x{width} pixels but got {rows}x{columns}."
        )


def check_seed(seed: object) -> None:
    """Raises a ValueError if it is no integer."""
    if not is_integer(seed):
        raise ValueError(f"seed must be an integer. Got {seed!r} instead.")
