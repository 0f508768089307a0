"""A folder of results: of one owner and of one kind of settings."""

import json
import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from errno import EACCES, EAGAIN
from pathlib import Path
from typing import IO, Any

from captum_gmar.files.writing import is_temporary, remove_temporary_files, write_json

try:
    from fcntl import LOCK_EX, LOCK_NB, lockf
except ImportError:  # not on this system
    lockf = None  # type: ignore[assignment]

SETTINGS, JOURNAL, LOCK = "settings.json", "journal", ".lock"

_held: set[Path] = set()  # by this process, which the system lets lock a file twice


@contextmanager
def use_folder(
    folder: Path, settings: Mapping[str, Any], versions: Mapping[str, str], note: Callable[[str], None]
) -> Iterator[None]:
    """Keep the folder for this process and for results of these settings within the block."""
    check_free(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with lock_folder(folder, note):
        for difference in open_folder(folder, settings, versions, has_results(folder)):
            note(f"results so far were made with other versions: {difference}")
        remove_temporary_files(folder)  # left by a run that was killed
        yield


def open_folder(
    folder: Path, settings: Mapping[str, Any], versions: Mapping[str, str], has_results: bool = True
) -> list[str]:
    """Make the folder for results of these settings, or check that it holds such results already.

    Return the versions with which those results were made, where they differ. Without results, those of other settings
    may come.
    """
    check_free(folder)
    path = folder / SETTINGS
    if not path.exists() or not has_results:
        folder.mkdir(parents=True, exist_ok=True)
        write_json(path, {"settings": settings, "versions": versions})
        return []
    there, made_with = _read_settings(path)
    here = json.loads(json.dumps(settings))
    others = [name for name in {**here, **there} if here.get(name) != there.get(name)]
    if others:
        name = others[0]
        raise ValueError(
            f"{folder} must hold results of the same settings, but {name} is {there.get(name)!r} there and "
            f"{here.get(name)!r} here. Choose another folder, or the same settings."
        )
    return [
        f"{name} {made_with.get(name)} there, {now} here"
        for name, now in versions.items()
        if made_with.get(name, now) != now
    ]


def check_free(folder: Path) -> None:
    """Check that the folder is new, or empty, or one of results."""
    if (folder / SETTINGS).exists() or not folder.exists():
        return
    if not folder.is_dir() or any(path.name != LOCK and not is_temporary(path) for path in folder.iterdir()):
        raise ValueError(f"{folder}: must be a new or empty folder, or one of results, but got other files there.")


def has_results(folder: Path) -> bool:
    """Return whether anything is finished."""
    return any(path.stat().st_size for path in (folder / JOURNAL).glob("process-*.jsonl"))


def check_output(output: object) -> Path | None:
    """Return the path of the results, if there is one."""
    if output is not None and not isinstance(output, str | os.PathLike):
        raise TypeError(f"output must be the path of a folder, but got {output!r}.")
    return None if output is None else Path(output)


def _read_settings(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    try:
        written = json.loads(path.read_text(encoding="utf-8"))
        return dict(written["settings"]), dict(written["versions"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} cannot be read: it is damaged, {error}. Choose another folder.") from error


@contextmanager
def lock_folder(folder: Path, note: Callable[[str], None]) -> Iterator[None]:
    """Lock the folder, which exists, for this process within the block.

    The system holds the lock, also on folders that machines share, and releases it when the process ends, however it
    ends. Where files cannot be locked, ``note`` says so and other processes are not kept out.
    """
    place = folder.resolve()
    if place in _held:
        raise BlockingIOError(f"{folder} cannot be used: this process uses it already. Wait, or choose another folder.")
    with (folder / LOCK).open("a+", encoding="utf-8") as file:
        _lock(file, folder, note)
        _held.add(place)
        try:
            _sign(file)
            yield
        finally:
            _held.discard(place)
            with suppress(OSError):  # the owner matters only while there is one
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
            f"{folder} cannot be used: {_owner(file)} is at work there. Wait until it is done, or choose another "
            "folder."
        ) from error
    return None


def _sign(file: IO[str]) -> None:
    """Write the owner into the file, for the messages of others."""
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
