"""What a user passes to a method: pixel values, and several targets for every example."""

from collections.abc import Sequence
from typing import TypeAlias

from torch import Tensor

from captum_gmar.engine._captum import TargetType, _format_tensor_into_tuples

Targets: TypeAlias = Sequence[int] | Sequence[tuple[int, ...]] | Tensor


def each_target(targets: Targets, examples: int) -> list[TargetType]:
    """K targets for so many examples, each in a form that Captum takes.

    Args:
        targets: K classes for all examples, as a sequence or a tensor (K,), or a tensor (N, K) of each example's own.
        examples: N.

    Raises:
        TypeError: if they are neither a sequence nor a tensor, or the sequence holds lists or tensors of several.
        ValueError: if there are none, or the tensor is of another shape.

    >>> import torch
    >>> each_target([281, 282], examples=3)
    [281, 282]
    >>> each_target(torch.tensor([[1, 2], [3, 4], [5, 6]]), examples=3)
    [tensor([1, 3, 5]), tensor([2, 4, 6])]
    """
    if isinstance(targets, Tensor):
        if targets.dim() not in (1, 2) or (targets.dim() == 2 and len(targets) != examples) or not targets.numel():
            raise ValueError(
                f"targets must be a tensor (K,) of classes for all examples, or (N, K) for {examples} examples, at "
                f"least one each. Got shape {tuple(targets.shape)} instead."
            )
        return list(targets.unbind(-1))
    if not isinstance(targets, Sequence) or isinstance(targets, str):
        raise TypeError(
            f"targets must be a sequence or tensor of classes. Got {type(targets).__name__} instead. Of one target, "
            "pass a sequence of that alone."
        )
    if any(isinstance(target, list) or (isinstance(target, Tensor) and target.dim()) for target in targets):
        raise TypeError(
            "targets must be a sequence of classes for all examples. Got a sequence of lists or tensors instead. Pass "
            "classes of each example's own as a tensor (N, K)."
        )
    if not targets:
        raise ValueError("targets must be at least one. Got none instead.")
    return list(targets)


def pixel_values(inputs: Tensor | tuple[Tensor, ...]) -> Tensor:
    pixels, *others = _format_tensor_into_tuples(inputs)
    if others:
        raise ValueError(
            f"Expected one tensor of pixel values but got {len(others) + 1} inputs. Pass the others as "
            "additional_forward_args."
        )
    if pixels.dim() != 4 or not len(pixels) or not pixels.is_floating_point():
        raise ValueError(
            "Expected floating-point pixel values of shape (examples, channels, height, width), at least one example, "
            f"but got {pixels.dtype} of shape {tuple(pixels.shape)}."
        )
    return pixels


def leaf(pixels: Tensor) -> Tensor:
    """The same numbers as a tensor of its own for autograd, also where they were made in inference mode."""
    return (pixels.clone() if pixels.is_inference() else pixels.detach()).requires_grad_()
