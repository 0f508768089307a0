"""Progress of a run, on stderr."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from threading import Event, Thread

from captum_gmar.cli.terminal import report
from captum_gmar.evaluation.runs.progress import SECONDS_APART, Listener


def listener_of(same: str | None, speaks: bool = True) -> Listener:
    """
    Args:
        same: what goes on with an interrupted run; None if nothing does.
        speaks: whether this process says how far it is, which of several only the first does.
    """
    is_terminal = sys.stderr.isatty()
    return Listener(
        note=partial(report, kind="note"),
        skip=report,
        has_bar=speaks and is_terminal,
        line=partial(report, kind="progress") if speaks and not is_terminal else None,
        goes_on=same if speaks else None,
    )


@contextmanager
def heartbeat(what: str, every: float = SECONDS_APART) -> Iterator[None]:
    """Say on stderr, every so many seconds within the block, that the work on something goes on."""
    is_over = Event()

    def speak() -> None:
        seconds = every
        while not is_over.wait(every):
            report(f"{what}: {seconds:.0f} s so far", kind="progress")
            seconds += every

    thread = Thread(target=speak, daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()
