"""One owner of a folder of results."""

import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from errno import EACCES, EAGAIN
from pathlib import Path
from typing import IO

try:
    from fcntl import LOCK_EX, LOCK_NB, lockf
except ImportError:  # not on this system
    lockf = None  # type: ignore[assignment]

LOCK = ".lock"

_held: set[Path] = set()  # by this process, which the system lets lock a file twice


@contextmanager
def owned(folder: Path, note: Callable[[str], None]) -> Iterator[None]:
    """
    Within the block, the folder is this process's and no other's.

    The system holds the lock, on folders that machines share as well, and lets it go when the process ends, however it
    ends. Where files cannot be locked, that is told and nothing is kept off.

    Args:
        folder: which is there.
        note: told if files cannot be locked.

    Raises:
        BlockingIOError: if another process is at work there; it says which.
        OSError: if the folder cannot be written to.
    """
    place = folder.resolve()
    if place in _held:
        raise BlockingIOError(f"{folder}: this process is at work there already")
    with (folder / LOCK).open("a+", encoding="utf-8") as file:
        _lock(file, folder, note)
        _held.add(place)
        try:
            _sign(file)
            yield
        finally:
            _held.discard(place)
            with suppress(OSError):  # who owned it is told while it is owned
                file.truncate(0)


def _lock(file: IO[str], folder: Path, note: Callable[[str], None]) -> None:
    if lockf is None:
        return note(f"{folder}: files cannot be locked on this system: see to it that no other run works there")
    try:
        lockf(file, LOCK_EX | LOCK_NB)
    except OSError as error:
        if error.errno not in (EACCES, EAGAIN):
            return note(f"{folder}: cannot be locked ({error.strerror}): see to it that no other run works there")
        raise BlockingIOError(
            f"{folder}: {_owner(file)} is at work there. Wait until it is done, or choose another folder."
        ) from error
    return None


def _sign(file: IO[str]) -> None:
    """Leaves word of who owns it, for the messages of others."""
    file.truncate(0)
    owner = {"host": socket.gethostname(), "process": os.getpid(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
    file.write(json.dumps(owner))
    file.flush()


def _owner(file: IO[str]) -> str:
    try:
        file.seek(0)
        owner = json.loads(file.read())
        return f"process {owner['process']} on {owner['host']}, since {owner['since']},"
    except (KeyError, OSError, TypeError, ValueError):
        return "another process"
