"""Deferred checks of tensors on a device, read in one synchronization."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


class Flags:
    """Whether something holds, of tensors whose numbers may not have been computed yet."""

    def __init__(self) -> None:
        self._must_hold: list[tuple[Tensor, Callable[[], Exception]]] = []
        self._finite: dict[int, Tensor] = {}  # by place among these, what must be finite: looked at together
        self._asked: list[Tensor] = []

    def must_hold(self, flag: Tensor, error: Callable[[], Exception]) -> None:
        """Let :meth:`look` raise the error of the first flag that does not hold."""
        self._must_hold.append((flag, error))

    def finite(self, tensor: Tensor, what: str) -> None:
        """Let :meth:`look` check that all numbers are finite; ``what`` names them."""
        self._finite[len(self._must_hold)] = tensor
        self.must_hold(tensor, lambda: not_finite_error(what))

    def add(self, flag: Tensor) -> None:
        """Add a flag, which :meth:`look` returns."""
        self._asked.append(flag)

    def look(self) -> list[bool]:
        """Return the flags that were added, in order; wait for the device once."""
        flags = [flag for flag, _ in self._must_hold] + self._asked
        are_finite = flag_each(list(self._finite.values()), lambda stacked: torch.isfinite(stacked).flatten(1).all(1))
        for place, is_finite in zip(self._finite, are_finite, strict=True):
            flags[place] = is_finite
        if not flags:
            return []
        answers: list[bool] = torch.stack([flag.to(flags[0].device) for flag in flags]).cpu().tolist()
        for holds, (_, error) in zip(answers, self._must_hold, strict=False):
            if not holds:
                raise error()
        return answers[len(self._must_hold) :]


def flag_each(tensors: Sequence[Tensor], test: Callable[[Tensor], Tensor]) -> list[Tensor]:
    """Apply a test (L, ...) → (L,) to each tensor, stacked by shape so that there are fewer operations."""
    groups: dict[object, list[int]] = {}
    for place, tensor in enumerate(tensors):
        groups.setdefault((tensor.shape, tensor.dtype, tensor.device), []).append(place)
    answers: dict[int, Tensor] = {}
    for indices in groups.values():
        answers.update(zip(indices, test(torch.stack([tensors[place] for place in indices])).unbind(), strict=True))
    return [answers[place] for place in range(len(tensors))]


def check_finite(tensor: Tensor, what: str) -> None:
    """Check that all numbers are finite; ``what`` names them."""
    flags = Flags()
    flags.finite(tensor, what)
    flags.look()


def not_finite_error(what: str) -> FloatingPointError:
    """Return the error of numbers that are NaN or infinite."""
    return FloatingPointError(
        f"The {what} must be finite, but got NaN or infinity. Check the inputs and the model's weights; in half "
        "precision, try float32 or bfloat16."
    )
