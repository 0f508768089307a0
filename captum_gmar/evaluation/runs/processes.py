"""One process, or several that torchrun has started, which share the work."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, NamedTuple, TypeVar

import torch

Item = TypeVar("Item")

_PATIENCE = timedelta(days=7)  # a finished process waits for others
_BACKENDS = {"cuda": "nccl", "xpu": "xccl"}


class FailedElsewhere(RuntimeError):
    """Error of another process, which reports it."""


class Processes(NamedTuple):
    """This process among all."""

    rank: int
    total: int

    @property
    def is_first(self) -> bool:
        """True for the process that opens the folder of results and writes the report and messages."""
        return self.rank == 0

    def share(self, items: Sequence[Item]) -> list[Item]:
        """Return this process's part: every ``total``-th item."""
        return list(items[self.rank :: self.total])

    def gather(self, item: Item) -> list[Item]:
        """Return the items of all processes, in each of them."""
        if self.total == 1:
            return [item]
        from torch import distributed

        items: list[Any] = [None] * self.total
        distributed.all_gather_object(items, item)
        return items

    def together(self, work: Callable[[], Item]) -> list[Item]:
        """Run work in each process; return all results in each, or raise FailedElsewhere, once all are done."""
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
        """Run work in the first process alone; return its result in each of them, as :meth:`together`."""
        results: list[Any] = self.together(work if self.is_first else lambda: None)
        result: Item = results[0]
        return result


def local_device(name: str) -> str:
    """Return the device of this process: of several on a machine, each has its own accelerator."""
    if name == "cpu" or ":" in name or _process_count() == 1 or not torch.accelerator.is_available():
        return name
    kind: Any = torch.accelerator.current_accelerator()
    return f"{kind.type}:{int(os.environ.get('LOCAL_RANK', '0')) % torch.accelerator.device_count()}"


@contextmanager
def joined_processes(device: torch.device) -> Iterator[Processes]:
    """Join the other processes that torchrun has started, if any, by the backend of this device."""
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


def _process_count() -> int:
    return int(os.environ.get("WORLD_SIZE", "1"))
