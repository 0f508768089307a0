"""Validation of images, attributions and masks."""

from collections.abc import Callable
from functools import cache
from numbers import Integral
from typing import TypeAlias

import torch
from torch import Tensor

Attribute: TypeAlias = Callable[..., Tensor]  # (inputs, target=...) → attributions
PatchSize: TypeAlias = int | tuple[int, int] | tuple[int, int, int] | None  # three numbers for videos only


def check_images(inputs: Tensor) -> None:
    """Raise a TypeError or ValueError unless the inputs are floating-point images (N, C, H, W)."""
    if not isinstance(inputs, Tensor):
        raise TypeError(f"inputs must be a tensor (N, C, height, width), but got {type(inputs).__name__}.")
    if inputs.dim() != 4 or not inputs.numel() or not inputs.is_floating_point():
        raise ValueError(
            "inputs must be floating-point (examples, channels, height, width), at least one example, but got "
            f"{inputs.dtype} of shape {tuple(inputs.shape)}."
        )


def check_attributions(attributions: Tensor, inputs: Tensor | None = None) -> Tensor:
    """Return the attributions in at least single precision, on the device of the inputs if these are given."""
    if not isinstance(attributions, Tensor):
        raise TypeError(f"attributions must be a tensor (N, C, height, width), but got {type(attributions).__name__}.")
    shape = tuple(attributions.shape)
    if inputs is not None and attributions.shape != inputs.shape:
        raise ValueError(
            f"attributions must have the shape of the inputs, {tuple(inputs.shape)}, but got {shape}. Spread the "
            "relevance of a patch over its pixels and channels, as `attribute` does."
        )
    if (inputs is None and attributions.dim() != 4) or not attributions.numel():
        raise ValueError(f"attributions must be (examples, channels, height, width), one or more, but got {shape}.")
    return _check_finite(attributions, attributions if inputs is None else inputs)


def check_relevance(relevance: Tensor, inputs: Tensor) -> Tensor:
    """Return patch relevance (N, rows, columns) of inputs (N, C, H, W), in at least single precision."""
    examples, _, height, width = inputs.shape
    if len(relevance) != examples or not relevance.numel() or height % relevance.shape[1] or width % relevance.shape[2]:
        raise ValueError(
            f"relevance must be of shape (examples, rows, columns) for {examples} examples and whole patches over "
            f"{height}x{width} pixels, but got {tuple(relevance.shape)}."
        )
    return _check_finite(relevance, inputs)


def check_masks(masks: Tensor, attributions: Tensor) -> Tensor:
    """Return masks (N, H, W) on the device of the attributions (N, C, H, W)."""
    if not isinstance(masks, Tensor) or masks.dtype != torch.bool:
        kind = masks.dtype if isinstance(masks, Tensor) else type(masks).__name__
        raise TypeError(
            f"masks must be a boolean tensor, True on the object, but got {kind}. Pass `masks > 0`, or make masks "
            "of boxes by `boxes_to_masks`."
        )
    expected = (len(attributions), *attributions.shape[2:])
    if masks.shape != expected:
        raise ValueError(
            f"masks must be of shape {expected}, (examples, height, width), but got {tuple(masks.shape)}. Scale masks "
            "and attributions to the same size."
        )
    empty = ~masks.flatten(1).any(1)
    if empty.any():
        raise ValueError(
            f"masks must each mark an object, but got an empty mask for example {_first_index(empty)}. Leave out "
            "examples without objects."
        )
    return masks.to(attributions.device)


def patch_scores(attributions: Tensor, patch_size: PatchSize) -> Tensor:
    """Sum attributions (N, C, H, W) over the channels and pixels of each patch, (N, rows, columns).

    Sums are in double precision, so that patches of equal relevance get equal scores. A device without double
    precision gets sums of the CPU, rounded to single precision.
    """
    float64_device = _float64_device(attributions.device)
    pixels = attributions.to(float64_device).sum(1, dtype=torch.float64)
    height, width = check_patch_size(patch_size, *pixels.shape[1:])
    scores = pixels.reshape(len(pixels), -1, height, pixels.shape[2] // width, width).sum((2, 4))
    return scores if float64_device == attributions.device else scores.to(torch.float32).to(attributions.device)


@cache
def _float64_device(device: torch.device) -> torch.device:
    """Return the device, or the CPU if the device lacks double precision, as Apple's GPUs do."""
    try:
        torch.zeros(1, dtype=torch.float64, device=device).sum()
    except (RuntimeError, TypeError):
        return torch.device("cpu")
    return device


def check_patch_size(patch_size: PatchSize, height: int, width: int) -> tuple[int, int]:
    """Return a patch's height and width; None means one pixel."""
    size = (1, 1) if patch_size is None else patch_size
    pair = size if isinstance(size, tuple) else (size, size)
    if len(pair) != 2 or not all(map(is_integer, pair)):
        raise TypeError(f"patch_size must be an integer or a tuple (height, width) of two, but got {patch_size!r}.")
    pair = pair[0], pair[1]
    if min(pair) < 1 or height % pair[0] or width % pair[1]:
        raise ValueError(
            f"patch_size must divide the image of {height}x{width} pixels, but got {pair[0]}x{pair[1]}. Pass the "
            "model's patch size, and images of whole patches."
        )
    return pair


def check_count(count: object, name: str) -> None:
    """Raise a ValueError for argument ``name`` unless it is a positive integer."""
    if not is_integer(count) or count < 1:  # type: ignore[operator]
        raise ValueError(f"{name} must be an integer, one or more, but got {count!r}.")


def graph_leaf(inputs: Tensor) -> Tensor:
    """Return a copy that requires grad, for gradient methods."""
    return inputs.detach().clone().requires_grad_()


def is_integer(number: object) -> bool:
    """Return whether a value is an integer, also one of numpy's, but not a bool."""
    return isinstance(number, Integral) and not isinstance(number, bool)


def _first_index(examples: Tensor) -> int:
    return int(examples.nonzero()[0])


def _check_finite(maps: Tensor, inputs: Tensor) -> Tensor:
    """Return finite maps in at least single precision, on the device of the inputs."""
    maps = maps.detach().to(inputs.device, torch.promote_types(maps.dtype, torch.float32))
    finite = maps.isfinite().flatten(1).all(1)
    if not finite.all():
        raise ValueError(
            f"attributions must be finite, but got NaN or infinity in example {_first_index(~finite)}. Check the "
            "method that made them."
        )
    return maps
