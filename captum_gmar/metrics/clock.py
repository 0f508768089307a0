"""Timing of calls on any device."""

import time
from collections.abc import Callable
from typing import TypeVar

import torch

R = TypeVar("R")


def time_call(call: Callable[[], R], device: torch.device) -> tuple[R, float]:
    """Return a call's result and its seconds on a device that is otherwise idle."""
    wait_for(device)
    begin = time.perf_counter()
    returned = call()
    wait_for(device)
    return returned, time.perf_counter() - begin


def wait_for(device: torch.device) -> None:
    """Synchronize the device; do nothing for the CPU."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
