"""How long a call takes, on any device."""

import time
from collections.abc import Callable
from typing import TypeVar

import torch

R = TypeVar("R")


def timed(call: Callable[[], R], device: torch.device) -> tuple[R, float]:
    """What the call returned, and the seconds that the device was at work for it alone."""
    wait_for(device)
    begin = time.perf_counter()
    returned = call()
    wait_for(device)
    return returned, time.perf_counter() - begin


def wait_for(device: torch.device) -> None:
    """Waits for what the device still has to do."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
