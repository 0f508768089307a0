"""One process, or several that torchrun has started, sharing out the work."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, NamedTuple, TypeVar

import torch

Item = TypeVar("Item")

_PATIENCE = timedelta(days=7)  # of a process that is finished, while others still work


class Processes(NamedTuple):
    """This process among all."""

    rank: int
    total: int

    def share(self, items: Sequence[Item]) -> list[Item]:
        """This process's part: every ``total``-th item."""
        return list(items[self.rank :: self.total])

    def gather(self, item: Item) -> list[Item]:
        """The items of all processes, for all of them."""
        if self.total == 1:
            return [item]
        from torch import distributed

        items: list[Any] = [None] * self.total
        distributed.all_gather_object(items, item)
        return items


def local_device(name: str) -> str:
    """The device of this process: of several on a machine, each has its own GPU."""
    if name == "cpu" or ":" in name or _count() == 1 or not torch.cuda.is_available():
        return name
    return f"cuda:{int(os.environ.get('LOCAL_RANK', '0')) % torch.cuda.device_count()}"


@contextmanager
def joined(device: torch.device) -> Iterator[Processes]:
    """Within the block, this process knows the others that torchrun has started, if any.

    Args:
        device: that this process works on; it decides between nccl and gloo.
    """
    if _count() == 1:
        yield Processes(0, 1)
        return
    from torch import distributed

    if device.type == "cuda":
        torch.cuda.set_device(device)
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=_PATIENCE)
    try:
        yield Processes(distributed.get_rank(), distributed.get_world_size())
    finally:
        distributed.destroy_process_group()


def _count() -> int:
    return int(os.environ.get("WORLD_SIZE", "1"))
