"""How long methods take, measured so that their times compare."""

from collections.abc import Callable, Mapping
from statistics import median
from typing import Any, NamedTuple

import torch

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
