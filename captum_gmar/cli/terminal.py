"""The commands of ``captum-gmar``, a module each, and how they speak to the terminal."""

import sys


class CommandError(Exception):
    """Bad input, told in one line; nothing was done."""


def one_line(message: object, length: int = 600) -> str:
    """The message without line breaks, cut where it becomes a text of its own."""
    line = " ".join(str(message).split())
    return line if len(line) <= length else f"{line[:length]}…"


def report(message: object, kind: str = "error") -> None:
    """Says on stderr what went wrong, in one line, above a progress bar if there is one."""
    from tqdm import tqdm

    tqdm.write(f"captum-gmar: {kind}: {one_line(message)}", file=sys.stderr)
