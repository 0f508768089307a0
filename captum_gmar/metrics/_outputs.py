"""Targets and model outputs: validation, and selection of the target's output."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeAlias

import torch
from torch import Tensor

ForwardFunc: TypeAlias = Callable[[Tensor], Tensor]
Target: TypeAlias = int | tuple[int, ...] | Tensor | Sequence[int] | Sequence[tuple[int, ...]] | None


def class_indices(target: Target, examples: int) -> Tensor | None:
    """Convert Captum's forms of a target to one class index per example (N,); None stays None.

    An integer, a tensor of one integer and a tuple of one integer apply to all examples. A list and any other tensor
    hold one class per example.
    """
    if target is None:
        return None
    indices = _integers(target)
    if indices.numel() == 1 and not isinstance(target, list):
        return indices.reshape(1).expand(examples)
    if isinstance(target, tuple) or indices.shape not in ((examples,), (examples, 1)):
        raise ValueError(f"target must be one for all examples, or a list or tensor of {examples}, but got {target!r}.")
    return indices.reshape(examples)


def _integers(target: Target) -> Tensor:
    try:
        indices = torch.as_tensor(target)
    except (TypeError, ValueError, RuntimeError):
        indices = torch.empty(0)
    if indices.is_floating_point() or indices.is_complex() or indices.dtype == torch.bool:
        raise TypeError(
            "target must be a class index, or one per example: an integer, a list of integers or a tensor of them, "
            f"but got {target!r}."
        )
    return indices.long()


def output_at(forward_func: ForwardFunc, index: tuple[int, ...]) -> ForwardFunc:
    """Return a function that selects one output per example, (N,), at (query, class) or (class, row, column)."""

    def select_output(inputs: Tensor) -> Tensor:
        outputs = forward_func(inputs)
        sizes = tuple(outputs.shape[1:]) if isinstance(outputs, Tensor) else ()
        if len(sizes) != len(index) or any(not -size <= i < size for i, size in zip(index, sizes, strict=True)):
            raise ValueError(
                f"target must be within outputs (examples, ...) of sizes {sizes}, but got {index}. Pass a list or a 1D "
                "tensor for one per example."
            )
        return outputs.movedim(0, -1)[index]

    return select_output


def target_output(outputs: Any, indices: Tensor | None, examples: int, softmax: bool) -> Tensor:
    """Return the target's output for each example (N,), in at least single precision, of (N, C), or (N,) or (N, 1)."""
    table = check_outputs(outputs, examples)
    if indices is None:
        return _single_output(table, softmax)
    if table.dim() != 2:
        raise ValueError(
            f"outputs must be of shape (examples, classes) for a target, but got {tuple(table.shape)}. Pass "
            "target=None for a model with one output per example."
        )
    classes = table.shape[1]
    indices = indices.to(table.device)
    if not ((indices >= -classes) & (indices < classes)).all():
        raise ValueError(f"target must be from 0 to {classes - 1}, as there are {classes} classes, but got {indices}.")
    chosen = table.softmax(1) if softmax else table
    return chosen.gather(1, (indices % classes)[:, None]).squeeze(1)


PROBABILITY, LOGIT = partial(target_output, softmax=True), partial(target_output, softmax=False)


def predicted_classes(outputs: Any, indices: Tensor | None, examples: int) -> Tensor:
    """Return the predicted class (N,) of outputs (N, C), ignoring the target; raise a ValueError for one class."""
    table = check_outputs(outputs, examples)
    if table.dim() != 2 or table.shape[1] < 2:
        raise ValueError(f"outputs must be (examples, classes) of two classes at least, but got {tuple(table.shape)}.")
    return table.argmax(1).to(table.dtype)


def check_outputs(outputs: Any, examples: int) -> Tensor:
    """Return a batch's outputs in at least single precision."""
    if not isinstance(outputs, Tensor):
        raise TypeError(
            f"forward_func must return a tensor (examples, classes), but got {type(outputs).__name__}. Pass the "
            "`forward_func` of an attribution, or `lambda inputs: model(inputs).logits`."
        )
    if outputs.dim() not in (1, 2) or len(outputs) != examples or not outputs.numel():
        raise ValueError(f"forward_func must return outputs ({examples}, classes), but got {tuple(outputs.shape)}.")
    table: Tensor = outputs.detach().to(torch.promote_types(outputs.dtype, torch.float32))
    if table.isnan().any():
        raise FloatingPointError(
            "forward_func must return outputs without NaN, but got NaN. Check the inputs and the model's weights; in "
            "half precision, try float32 or bfloat16."
        )
    return table


def _single_output(table: Tensor, softmax: bool) -> Tensor:
    if table.numel() > len(table):
        raise ValueError(f"target must be given for outputs (examples, classes), {tuple(table.shape)}, but got None.")
    if softmax:
        raise ValueError(
            "softmax must be False for a model with one output per example, as the softmax over a single class is "
            "always 1, but got True."
        )
    return table.flatten()
