"""Work in a process of its own, so that what one leaves behind, or breaks, is nothing to the next."""

import multiprocessing
import re
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

# A server that has imported much and computed nothing splits off each process: none waits for imports.
_WAYS = multiprocessing.get_all_start_methods()
_CONTEXT: Any = multiprocessing.get_context("forkserver" if "forkserver" in _WAYS else "spawn")

_PATH = re.compile(r" \(/[^)]*\)")  # where an import failed
Send = Callable[[Any], None]


class Ended(Exception):
    """Work did not come to its end; the text says why."""


class _Broke(NamedTuple):
    """The last message of work that raised an error."""

    reason: str


def prepare() -> None:
    """Lets the server import, before it splits off the first process, what all of them need."""
    if _CONTEXT.get_start_method() == "forkserver":
        _CONTEXT.set_forkserver_preload(["benchmarks.rows"])


def isolated(work: Callable[..., None], *args: object) -> Generator[Any]:
    """Runs ``work(send, *args)`` in a new process, and yields what it sends.

    Closing the iterator ends the process.

    Raises:
        Ended: if the process ends in any other way than at the end of the work.
    """
    receiving, sending = _CONTEXT.Pipe(duplex=False)
    process = _CONTEXT.Process(target=_run, args=(sending, work, *args), daemon=True)
    process.start()
    sending.close()
    try:
        yield from _received(receiving)
        process.join()
    finally:
        process.kill()
        process.join()
        receiving.close()
    if process.exitcode:
        raise Ended(_how_it_ended(process.exitcode))


def failure(error: BaseException) -> str:
    """Why it could not be measured, in a line."""
    text = _PATH.sub("", " ".join(str(error).split()))
    return f"{type(error).__name__}: {text[:200]}" if text else type(error).__name__


def _run(sending: Connection, work: Callable[..., None], *args: object) -> None:
    with suppress(OSError):  # where memory runs out, this process is to be ended and no other
        Path("/proc/self/oom_score_adj").write_text("1000")
    with closing(sending):
        try:
            work(sending.send, *args)
        except Exception as error:
            sending.send(_Broke(failure(error)))


def _received(receiving: Connection) -> Iterator[Any]:
    while True:
        try:
            message = receiving.recv()
        except EOFError:
            return
        if isinstance(message, _Broke):
            raise Ended(message.reason)
        yield message


def _how_it_ended(exitcode: int) -> str:
    if exitcode == -9:
        return "killed, most likely for want of memory"
    return f"ended by signal {-exitcode}" if exitcode < 0 else f"ended with status {exitcode}"
