"""What does not fit in memory together is done for fewer examples at once."""

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor

from captum_gmar.engine.request import Request

OfSome = TypeVar("OfSome")


def in_halves(run: Callable[[Tensor, Request], OfSome], pixels: Tensor, request: Request) -> list[OfSome]:
    """What ``run`` gives of the examples, or of each half of them where memory does not hold all at once.

    Args:
        run: takes some examples' pixels and what is to be explained of them; where it fails it leaves nothing behind.
        pixels: (N, channels, height, width).
        request: of all of them.

    Returns:
        Of as many examples each as fit, in their order.

    Raises:
        torch.OutOfMemoryError: if memory does not hold one.
    """
    try:
        return [run(pixels, request)]
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        if len(pixels) == 1:
            raise _out_of_memory(pixels, error) from error
    # Only here are the frames gone in which the error was raised, and what they held.
    half = request._replace(internal_batch_size=-(-len(pixels) // 2))
    return [result for batch in half.batches(pixels) for result in in_halves(run, *batch)]


def is_out_of_memory(error: Exception) -> bool:
    """Whether it was raised for want of memory: on a CPU torch has no class of its own for that."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "DefaultCPUAllocator: " in str(error)


def _out_of_memory(pixels: Tensor, error: Exception) -> torch.OutOfMemoryError:
    return torch.OutOfMemoryError(
        f"Expected memory for one example at once, of shape {tuple(pixels.shape)} on {pixels.device}, but it does not "
        f"hold that either: {str(error).splitlines()[0] if str(error) else type(error).__name__} Pass smaller images "
        "or a smaller model, or free memory first."
    )
