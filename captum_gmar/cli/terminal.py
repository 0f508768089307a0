"""How the commands speak: results on stdout, and errors, warnings and notes in one line each on stderr."""

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

PACKAGE = "captum_gmar"


class CommandError(Exception):
    """Bad usage, told in one line; nothing was done."""


class OutputError(Exception):
    """Stdout cannot be written to."""


def one_line(message: object, length: int = 600) -> str:
    """The message without line breaks, cut where it becomes a text of its own."""
    if isinstance(message, OSError) and message.strerror:
        name = "" if message.filename is None else f"{os.fsdecode(message.filename)}: "
        message = f"{name}{message.strerror}"
    line = " ".join(str(message).split()) or type(message).__name__
    return line if len(line) <= length else f"{line[:length]}…"


def print_text(text: str) -> None:
    """Prints a result, at once, above a progress bar if there is one.

    Raises:
        OutputError: if stdout is full.
        BrokenPipeError: if whoever read it has left.
    """
    from tqdm import tqdm

    try:
        tqdm.write(text, file=sys.stdout)
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputError(f"standard output cannot be written: {error.strerror or error}") from error


def report(message: object, kind: str = "error") -> None:
    """Says on stderr what went wrong, in one line, above a progress bar if there is one."""
    from tqdm import tqdm

    tqdm.write(f"captum-gmar: {kind}: {one_line(message)}", file=sys.stderr)


@contextmanager
def reported_warnings() -> Iterator[None]:
    """Within the block, what this package warns of is reported in one line, once, and what others warn of is not."""
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
    """Whether the code that has called ``warnings.warn`` is this package's, wherever the warning points to."""
    frame = sys._getframe(2)
    while frame.f_back is not None and frame.f_globals.get("__name__") == "warnings":
        frame = frame.f_back
    return str(frame.f_globals.get("__name__")).partition(".")[0] == PACKAGE
