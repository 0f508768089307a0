"""The images and maps that a metric is given: checked, and brought to one form."""

from collections.abc import Callable
from functools import cache
from typing import TypeAlias

import torch
from torch import Tensor

Attribute: TypeAlias = Callable[..., Tensor]  # (inputs, target=...) → attributions
PatchSize: TypeAlias = int | tuple[int, int] | tuple[int, int, int] | None  # three of videos alone


def check_images(inputs: Tensor) -> None:
    """Raises a TypeError or ValueError unless they are floating-point images (N, C, H, W), one at least."""
    if not isinstance(inputs, Tensor):
        raise TypeError(
            f"inputs must be a tensor (examples, channels, height, width). Got {type(inputs).__name__} instead."
        )
    if inputs.dim() != 4 or not inputs.numel() or not inputs.is_floating_point():
        raise ValueError(
            "Expected floating-point inputs of shape (examples, channels, height, width), at least one example, but "
            f"got {inputs.dtype} of shape {tuple(inputs.shape)}."
        )


def check_attributions(attributions: Tensor, inputs: Tensor | None = None) -> Tensor:
    """The attributions, at least in single precision, and on the device of the inputs if these are given."""
    if not isinstance(attributions, Tensor):
        raise TypeError(
            "attributions must be a tensor (examples, channels, height, width). "
            f"Got {type(attributions).__name__} instead."
        )
    shape = tuple(attributions.shape)
    if inputs is not None and attributions.shape != inputs.shape:
        raise ValueError(
            f"Expected attributions in the shape of the inputs, {tuple(inputs.shape)}, but got {shape}. Spread the "
            "relevance of a patch over its pixels and channels, as `attribute` does."
        )
    if (inputs is None and attributions.dim() != 4) or not attributions.numel():
        raise ValueError(
            "Expected attributions of shape (examples, channels, height, width), at least one example, but got "
            f"{shape}."
        )
    maps = attributions.detach()
    return _finite(
        maps.to(maps.device if inputs is None else inputs.device, torch.promote_types(maps.dtype, torch.float32))
    )


def check_relevance(relevance: Tensor, inputs: Tensor) -> Tensor:
    """The relevance of patches (N, rows, columns) over the inputs (N, C, H, W), at least in single precision."""
    examples, _, height, width = inputs.shape
    if len(relevance) != examples or not relevance.numel() or height % relevance.shape[1] or width % relevance.shape[2]:
        raise ValueError(
            f"Expected relevance of shape (examples, rows, columns) for {examples} examples and whole patches over "
            f"{height}x{width} pixels but got {tuple(relevance.shape)}."
        )
    return _finite(relevance.detach().to(inputs.device, torch.promote_types(relevance.dtype, torch.float32)))


def check_masks(masks: Tensor, attributions: Tensor) -> Tensor:
    """The masks (N, H, W), on the device of the attributions (N, C, H, W)."""
    if not isinstance(masks, Tensor) or masks.dtype != torch.bool:
        given = masks.dtype if isinstance(masks, Tensor) else type(masks).__name__
        raise TypeError(
            f"masks must be a boolean tensor, True on the object. Got {given} instead. Pass `masks > 0`, or make masks "
            "of boxes by `boxes_to_masks`."
        )
    expected = (len(attributions), *attributions.shape[2:])
    if masks.shape != expected:
        raise ValueError(
            f"Expected masks of shape {expected}, (examples, height, width), but got {tuple(masks.shape)}. Bring "
            "masks and attributions to the same size."
        )
    empty = ~masks.flatten(1).any(1)
    if empty.any():
        raise ValueError(
            f"Expected an object in every mask but got an empty mask for example {_first(empty)}. Leave out examples "
            "without objects."
        )
    return masks.to(attributions.device)


def patch_scores(attributions: Tensor, patch_size: PatchSize) -> Tensor:
    """The attributions (N, C, H, W) summed over the channels and pixels of each patch, (N, rows, columns).

    Summed in double precision, so that patches of the same relevance get the same score, wherever they lie. Where the
    device has none they are summed on the CPU, and rounded.
    """
    home = with_float64(attributions.device)
    pixels = attributions.to(home).sum(1, dtype=torch.float64)
    height, width = check_patch_size(patch_size, *pixels.shape[1:])
    scores = pixels.reshape(len(pixels), -1, height, pixels.shape[2] // width, width).sum((2, 4))
    return scores if home == attributions.device else scores.to(torch.float32).to(attributions.device)


@cache
def with_float64(device: torch.device) -> torch.device:
    """The device, or the CPU if it does not compute in double precision, as Apple's GPUs and some others do not."""
    try:
        torch.zeros(1, dtype=torch.float64, device=device).sum()
    except (RuntimeError, TypeError):
        return torch.device("cpu")
    return device


def check_patch_size(patch_size: PatchSize, height: int, width: int) -> tuple[int, int]:
    """The height and width of a patch; None is one pixel."""
    size = (1, 1) if patch_size is None else patch_size
    pair = size if isinstance(size, tuple) else (size, size)
    if len(pair) != 2 or not all(map(is_integer, pair)):
        raise TypeError(f"patch_size must be an integer or a tuple (height, width) of two. Got {patch_size!r} instead.")
    pair = pair[0], pair[1]
    if min(pair) < 1 or height % pair[0] or width % pair[1]:
        raise ValueError(
            f"Expected a patch size that divides the image of {height}x{width} pixels but got {pair[0]}x{pair[1]}. "
            "Pass the model's patch size, and images of whole patches."
        )
    return pair


def check_count(count: object, name: str) -> None:
    """Raises a ValueError if it is no integer of one or more; ``name`` says whose."""
    if not is_integer(count) or count < 1:  # type: ignore[operator]
        raise ValueError(f"{name} must be an integer, one or more. Got {count!r} instead.")


def graph_leaf(inputs: Tensor) -> Tensor:
    """The same numbers as a tensor of its own, for methods that want a gradient of it."""
    return inputs.detach().clone().requires_grad_()


def is_integer(number: object) -> bool:
    """Whether it is an int, and no bool."""
    return isinstance(number, int) and not isinstance(number, bool)


def _first(examples: Tensor) -> int:
    return int(examples.nonzero()[0])


def _finite(maps: Tensor) -> Tensor:
    finite = maps.isfinite().flatten(1).all(1)
    if not finite.all():
        raise ValueError(
            f"Expected finite attributions but got NaN or infinity in example {_first(~finite)}. Check the method that "
            "made them."
        )
    return maps
