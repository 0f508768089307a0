"""Targets and contrasts, checked against the outputs that they select from.

Letters in shapes: N examples, D dimensions of an output beside the examples.
"""

import math
from collections.abc import Callable, Sequence
from operator import index
from typing import Any

import torch
from torch import Tensor

from captum_gmar.engine._captum import TargetType, _select_targets
from captum_gmar.engine.finite_checks import Flags

SEVERAL_OUTPUTS = (
    "Target not provided when necessary, cannot take gradient with respect to multiple outputs."  # Captum's
)


def select(scores: Tensor, target: TargetType, contrast: TargetType, flags: Flags | None = None) -> Tensor:
    """Return what is explained (N,): the target's scores of (N, ...), minus the contrast's.

    ``flags`` take the checks that would wait for a device; without them all are made at once.
    """
    deferred = Flags() if flags is None else flags
    selected = _select_scores(scores, target, "target", deferred)
    if contrast is not None:
        selected = selected - _select_scores(scores, contrast, "contrast", deferred)
        _check_differ(scores, target, contrast, deferred)
    deferred.finite(selected, "target's logits")
    if flags is None:
        deferred.look()
    return selected


def check_target(shape: Sequence[int], target: TargetType, name: str = "target", flags: Flags | None = None) -> None:
    """Check that a target selects one number of each example's output, of shape (N, ...).

    A target in none of Captum's forms passes, as Captum refuses it by name. ``flags`` take the check of indices on
    another device than the CPU.
    """
    examples, *sizes = shape
    indices = _indices(target, examples, name)
    is_whole = indices is not None and indices.shape[1] == len(sizes)
    has_several = len(sizes) > 1 and math.prod(sizes) > 1
    if not is_whole and (has_several or (indices is not None and isinstance(target, list))):
        raise ValueError(
            f"{name} must be {len(sizes)} {'index' if len(sizes) == 1 else 'indices'} into each output of shape "
            f"{tuple(sizes)}, such as (query, class) or (class, row, column), but got {target!r}. Pass all of them, or "
            "a forward_func that returns one number per example."
        )
    if indices is None or not is_whole:
        return
    lowest = 0 if _is_gathered(target) else -1  # Captum counts other negative indices from the end
    is_valid = [(lowest * size <= place) & (place < size) for place, size in zip(indices.unbind(1), sizes, strict=True)]
    holds = torch.stack(is_valid).all(0)
    _hold(holds.all(), lambda: _range_error(sizes, indices[~holds][0].tolist(), name), flags)


def _select_scores(scores: Tensor, target: TargetType, name: str, flags: Flags) -> Tensor:
    check_target(scores.shape, target, name, flags)
    if isinstance(target, Tensor):  # a data loader gives labels on the CPU
        is_deferred = target.device.type != "cpu" and _is_gathered(target)
        target = (target.clamp(0, scores.shape[1] - 1) if is_deferred else target).to(scores.device)
    selected: Tensor = _select_targets(scores, target)
    if selected.numel() != len(selected):
        raise AssertionError(SEVERAL_OUTPUTS)
    return selected


def _check_differ(scores: Tensor, target: TargetType, contrast: TargetType, flags: Flags) -> None:
    """Check that target and contrast are two outputs of every example."""
    examples, *sizes = scores.shape
    first, second = (_indices(each, examples, "target") for each in (target, contrast))
    if first is None or second is None:  # of one output that has no index
        return
    bounds = torch.tensor(sizes, device=scores.device)
    places = first.to(scores.device) % bounds
    is_same = (places == second.to(scores.device) % bounds).all(1)
    _hold(~is_same.any(), lambda: _same_error(places.expand(len(is_same), -1)[is_same][0].tolist()), flags)


def _hold(holds: Tensor, error: Callable[[], Exception], flags: Flags | None) -> None:
    """Raise the error of what does not hold, once the flags are looked at where it is not on the CPU."""
    if flags is not None and holds.device.type != "cpu":
        flags.must_hold(holds, error)
    elif not holds:
        raise error()


def _indices(target: TargetType, examples: int, name: str) -> Tensor | None:
    """Return the indices of a target, (N, D) or (1, D) for all examples; None for what is none of Captum's forms."""
    if isinstance(target, Tensor):
        is_integer = not (target.is_floating_point() or target.dtype == torch.bool)
        if target.shape == (examples,) and not is_integer:
            raise _kind_error(target, name)
        is_form = is_integer and (target.shape == (examples,) or target.numel() == 1)
        return target.reshape(-1, 1) if is_form else None
    if isinstance(target, int) and not isinstance(target, bool):
        return torch.tensor([[target]], device="cpu")
    if isinstance(target, tuple):
        return None if any(isinstance(each, slice) for each in target) else _index_tensor([target], target, name)
    if not isinstance(target, list) or len(target) != examples or not isinstance(target[0], int | tuple):
        return None
    return _index_tensor([each if isinstance(each, tuple) else (each,) for each in target], target, name)


def _index_tensor(rows: Sequence[Sequence[Any]], target: object, name: str) -> Tensor:
    if any(isinstance(each, bool) for row in rows for each in row):
        raise _kind_error(target, name)
    try:
        return torch.tensor([[index(each) for each in row] for row in rows], device="cpu").long().view(len(rows), -1)
    except (TypeError, ValueError):
        raise _kind_error(target, name) from None


def _is_gathered(target: TargetType) -> bool:
    """Return whether Captum selects by ``torch.gather``, one class per example."""
    return (isinstance(target, list) and isinstance(target[0], int)) or (
        isinstance(target, Tensor) and target.numel() > 1
    )


def _kind_error(target: object, name: str) -> TypeError:
    return TypeError(f"{name} must be integers, one for each dimension of an example's output, but got {target!r}.")


def _same_error(indices: Sequence[int]) -> ValueError:
    return ValueError(f"contrast must be another class than the target, but got {_indices_text(indices)} for both.")


def _range_error(sizes: Sequence[int], wrong: Sequence[int], name: str) -> ValueError:
    range_reason = f", as there are {sizes[0]} classes" if len(sizes) == 1 else ""
    limits = " and ".join(str(size - 1) for size in sizes)
    return ValueError(f"{name} must be from 0 to {limits}{range_reason}, but got {_indices_text(wrong)}.")


def _indices_text(indices: Sequence[int]) -> str:
    return str(indices[0]) if len(indices) == 1 else str(tuple(indices))
