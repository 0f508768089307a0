"""One process, or several that torchrun has started, sharing out the work."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, NamedTuple, TypeVar

import torch

Item = TypeVar("Item")

_PATIENCE = timedelta(days=7)  # of a process that is finished, while others still work
_BACKENDS = {"cuda": "nccl", "xpu": "xccl"}


class FailedElsewhere(RuntimeError):
    """Another process has failed, and says why; this one ends with it."""


class Processes(NamedTuple):
    """This process among all."""

    rank: int
    total: int

    @property
    def is_first(self) -> bool:
        """Whether it is the one that opens the folder of results, writes the report and speaks."""
        return self.rank == 0

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

    def together(self, work: Callable[[], Item]) -> list[Item]:
        """What the work of each process has returned, for all of them; none leaves before all have done theirs.

        Raises:
            Exception: whatever this process's work has raised.
            FailedElsewhere: if another's has raised something.
        """
        result, failure = None, None
        try:
            result = work()
        except Exception as error:
            failure = error
        outcomes = self.gather((result, None if failure is None else str(failure)))
        if failure:
            raise failure
        reasons = [reason for _, reason in outcomes if reason is not None]
        if reasons:
            raise FailedElsewhere(reasons[0])
        return [result for result, _ in outcomes]  # type: ignore[misc]

    def first(self, work: Callable[[], Item]) -> Item:
        """What the work of the first process has returned, for all of them, as :meth:`together`; no other does it."""
        results: list[Any] = self.together(work if self.is_first else lambda: None)
        result: Item = results[0]
        return result


def local_device(name: str) -> str:
    """The device of this process: of several on a machine, each has its own accelerator."""
    if name == "cpu" or ":" in name or _process_count() == 1 or not torch.accelerator.is_available():
        return name
    kind: Any = torch.accelerator.current_accelerator()
    return f"{kind.type}:{int(os.environ.get('LOCAL_RANK', '0')) % torch.accelerator.device_count()}"


@contextmanager
def joined_processes(device: torch.device) -> Iterator[Processes]:
    """Within the block, this process knows the others that torchrun has started, if any.

    Args:
        device: that this process works on; it decides how the processes speak to each other.
    """
    if _process_count() == 1:
        yield Processes(0, 1)
        return
    from torch import distributed

    if device.type != "cpu":
        torch.accelerator.set_device_index(device.index or 0)
    distributed.init_process_group(_BACKENDS.get(device.type, "gloo"), timeout=_PATIENCE)
    try:
        yield Processes(distributed.get_rank(), distributed.get_world_size())
    finally:
        distributed.destroy_process_group()


def is_first_process() -> bool:
    """Whether this process speaks: it is alone, or the first of those that torchrun has started."""
    return os.environ.get("RANK", "0") == "0"


def _process_count() -> int:
    return int(os.environ.get("WORLD_SIZE", "1"))
