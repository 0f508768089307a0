"""Counts of a method's passes through a model, forward and backward, and their time."""

import copy
from collections.abc import Callable, Mapping
from statistics import median
from typing import Any, NamedTuple

import captum.attr
import torch
from torch import Tensor

from captum_gmar.attr.patch_relevance import Method
from captum_gmar.engine._captum import Attribution
from captum_gmar.engine.models.patch_grid import Logits
from captum_gmar.metrics.clock import time_call

ENOUGH_SECONDS = 5.0  # after which a method is not run again to time it


class Times(NamedTuple):
    """The seconds of each run of a method, and what the last one returned."""

    seconds: list[float]
    returned: Any = None


def time_in_turns(
    calls: Mapping[str, Callable[[], Any]],
    reference: Callable[[], Any],
    device: torch.device,
    rounds: int,
    advance: Callable[[], Any] = lambda: None,
) -> tuple[dict[str, Times], float]:
    """Return the times of calls that take turns, and the median time of a reference that runs before each of them.

    Each call is run so many rounds, though not again after five seconds altogether; ``advance`` is called after each
    turn.
    """
    times = {name: Times([]) for name in calls}
    reference_seconds = []
    for _ in range(rounds):
        for name, call in calls.items():
            if sum(times[name].seconds) < ENOUGH_SECONDS:
                reference_seconds.append(time_call(reference, device)[1])
                returned, seconds = time_call(call, device)
                times[name] = Times([*times[name].seconds, seconds], returned)
            advance()
    return times, median(reference_seconds)


class Passes:
    """Counts the images that go forward through functions, and those that a gradient comes back for."""

    def __init__(self) -> None:
        self.forward = self.backward = 0

    def count(self, forward_func: Callable[..., Tensor]) -> Callable[..., Tensor]:
        """Return the function with its passes counted."""

        def forward(inputs: Tensor, *args: Any, **kwargs: Any) -> Tensor:
            outputs = forward_func(inputs, *args, **kwargs)
            self.forward += len(inputs)
            if outputs.requires_grad:  # the hook goes with the outputs
                outputs.register_hook(lambda gradient: self._count_backward(len(inputs)))  # type: ignore[no-untyped-call]
            return outputs

        return forward

    def per_run(self, runs: int) -> tuple[int | None, int | None]:
        """Forward and backward of one of so many runs; None where no run was seen to go through the functions."""
        return (self.forward // runs, self.backward // runs) if self.forward else (None, None)

    def _count_backward(self, images: int) -> None:
        self.backward += images


def copy_counted(method: Method, passes: Passes) -> Method:
    """Return a copy of the method whose passes are counted; callables stay as they are."""
    if not isinstance(method, Attribution):
        return method
    watched: Any = copy.copy(method)
    watched.forward_func = Logits(passes.count(Logits(method.forward_func)))
    if isinstance(method, captum.attr.NoiseTunnel):
        watched.attribution_method = copy_counted(method.attribution_method, passes)
    return watched  # type: ignore[no-any-return]
