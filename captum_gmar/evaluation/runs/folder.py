"""A folder of results: of one owner and of one kind of settings, with reports that are put in place as a whole."""

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from captum_gmar.evaluation.runs.lock import LOCK, owned
from captum_gmar.files.writing import write_json

SETTINGS, JOURNAL = "settings.json", "journal"
_STAGING, _READY = ".new", ".ready"  # reports: as they are written, and as a whole on their way to their places
_CONTENTS = ".contents"  # in these: which they are


@contextmanager
def opened(
    folder: Path, settings: Mapping[str, Any], versions: Mapping[str, str], note: Callable[[str], None]
) -> Iterator[None]:
    """
    Within the block, the folder is this process's alone, and for results of these settings.

    Raises:
        OSError: if the folder cannot be made or written to, or another process is at work there.
        ValueError: if it holds other things.
    """
    check_free(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with owned(folder, note):
        for difference in open_folder(folder, settings, versions, has_results(folder)):
            note(f"results so far were made with other versions: {difference}")
        _put_in_place(folder)  # what a run that was killed has left on the way
        yield


def open_folder(
    folder: Path, settings: Mapping[str, Any], versions: Mapping[str, str], has_results: bool = True
) -> list[str]:
    """
    Makes the folder for results of these settings, or finds that it holds such results already.

    Args:
        folder: of the results.
        settings: all that they depend on, as JSON takes it.
        versions: of the libraries.
        has_results: whether there are any yet; if not, those of other settings may come.

    Returns:
        What the versions were with which those results were made, where they differ.

    Raises:
        OSError: if the folder cannot be made or written to.
        ValueError: if it holds other things.
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
            f"{folder}: holds results of other settings: {name} is {there.get(name)!r} there and {here.get(name)!r} "
            "here. Choose another folder, or the same settings."
        )
    return [
        f"{name} {made_with.get(name)} there, {now} here"
        for name, now in versions.items()
        if made_with.get(name, now) != now
    ]


def check_free(folder: Path) -> None:
    """
    Checks that results can be in the folder: it is new, or empty, or one of results.

    Raises:
        ValueError: if it is none of these.
    """
    if (folder / SETTINGS).exists() or not folder.exists():
        return
    if not folder.is_dir() or any(path.name != LOCK for path in folder.iterdir()):
        raise ValueError(f"{folder}: must be a new or empty folder, or one of results. Got other files there.")


def has_results(folder: Path) -> bool:
    """Whether anything is finished."""
    return any(path.stat().st_size for path in (folder / JOURNAL).glob("**/process-*.jsonl"))


@contextmanager
def replacing_report(folder: Path, names: Sequence[str]) -> Iterator[Path]:
    """
    Yields a folder to write a report to; at the end of the block it takes the place of the one before, as a whole.

    If the run is killed on the way, the next one that opens the folder goes on with it. After an error, the report
    before still stands.

    Args:
        folder: of the results.
        names: of all the files and folders that a report may have, the one that people read first.
    """
    staging = folder / _STAGING
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir()
    try:
        yield staging
        written = [name for name in names if (staging / name).exists()]
        write_json(staging / _CONTENTS, {"written": written, "not written": [*{*names} - {*written}]})
        os.replace(staging, folder / _READY)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    _put_in_place(folder)


@contextmanager
def kept_in(output: str | Path | None) -> Iterator[Path]:
    """The folder of the results, for good or, where there is to be none, within the block."""
    if output is not None:
        if not isinstance(output, str | os.PathLike):
            raise TypeError(f"output must be the path of a folder. Got {output!r} instead.")
        yield Path(output)
        return
    with TemporaryDirectory() as folder:
        yield Path(folder)


def _put_in_place(folder: Path) -> None:
    """Moves a whole report to its places; what has been moved before stays there."""
    ready = folder / _READY
    if not ready.is_dir():
        return
    contents = json.loads((ready / _CONTENTS).read_text(encoding="utf-8"))
    waiting = [name for name in contents["written"] if (ready / name).exists()]
    for name in [*contents["not written"], *waiting]:
        _remove(folder / name)
    for name in reversed(waiting):
        os.replace(ready / name, folder / name)
    shutil.rmtree(ready)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _read_settings(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    try:
        written = json.loads(path.read_text(encoding="utf-8"))
        return dict(written["settings"]), dict(written["versions"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: is damaged: {error}. Choose another folder.") from error
