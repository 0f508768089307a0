"""Output of the commands: results on stdout; errors, warnings, notes and progress in one line each on stderr."""

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from threading import Event, Thread
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from captum_gmar.evaluation.runs.progress import Listener

PACKAGE = "captum_gmar"
SECONDS = 30.0  # between two lines of progress


class CommandError(Exception):
    """Bad usage, reported in one line; nothing was done."""


class OutputError(Exception):
    """Failure to write to stdout."""


def one_line(message: object, length: int = 600) -> str:
    """Return the message without line breaks, cut to a length."""
    if isinstance(message, OSError) and message.strerror:
        name = "" if message.filename is None else f"{os.fsdecode(message.filename)}: "
        message = f"{name}{message.strerror}"
    line = " ".join(str(message).split()) or type(message).__name__
    return line if len(line) <= length else f"{line[:length]}…"


def print_text(text: str) -> None:
    """Print a result at once, above a progress bar if there is one."""
    from tqdm import tqdm

    try:
        tqdm.write(text, file=sys.stdout)
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputError(f"standard output cannot be written: {error.strerror or error}. Check its reader.") from error


def report(message: object, kind: str = "error") -> None:
    """Write a message to stderr in one line, above a progress bar if there is one."""
    from tqdm import tqdm

    tqdm.write(f"captum-gmar: {kind}: {one_line(message)}", file=sys.stderr)


@contextmanager
def reported_warnings() -> Iterator[None]:
    """Report each warning of this package once, in one line, and no other warnings, within the block."""
    known: set[str] = set()

    def show(message: Warning | str, *_: object, **__: object) -> None:
        line = one_line(message)
        if line not in known and _warns_itself():
            known.add(line)
            report(line, "warning")

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = show
        yield


def _warns_itself() -> bool:
    """Return whether code of this package called ``warnings.warn``, wherever the warning points to."""
    frame = sys._getframe(2)
    while frame.f_back is not None and frame.f_globals.get("__name__") == "warnings":
        frame = frame.f_back
    return str(frame.f_globals.get("__name__")).partition(".")[0] == PACKAGE


def listener_of(continuation: str | None, speaks: bool = True) -> "Listener":
    """Return the listener of a run, which ``continuation`` continues; of several processes, only the first speaks."""
    from captum_gmar.evaluation.runs.progress import Listener

    is_terminal = sys.stderr.isatty()
    return Listener(
        note=partial(report, kind="note"),
        skip=report,
        has_bar=speaks and is_terminal,
        line=partial(report, kind="progress") if speaks and not is_terminal else None,
        goes_on=continuation if speaks else None,
    )


@contextmanager
def heartbeat(work: str, every: float = SECONDS) -> Iterator[None]:
    """Report on stderr, every so many seconds within the block, that the work continues."""
    is_over = Event()

    def speak() -> None:
        seconds = every
        while not is_over.wait(every):
            report(f"{work}: {seconds:.0f} s so far", kind="progress")
            seconds += every

    thread = Thread(target=speak, daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()
