"""What is finished, kept so that a run that was killed goes on where it stopped.

Every process appends to a file of its own, one line per batch of examples, written whole to the disk before the next
batch begins. A line that a kill has torn has no end and is cut off when the file is opened again.
"""

import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, TypeVar

Line = TypeVar("Line")


class Row(NamedTuple):
    """One number of an example."""

    method: str
    metric: str
    removal: str  # "" for metrics that remove nothing
    value: float
    curve: tuple[float, ...] = ()  # of which the value is the area


class Result(NamedTuple):
    """All that was measured of an example."""

    number: int  # of the example in the data
    target: int  # the class that was explained
    rows: tuple[Row, ...]

    def lacks(self, methods: Iterable[str]) -> list[str]:
        """Which of these methods, or controls, are to be measured yet. Without any rows there is nothing to measure."""
        known = {row.method for row in self.rows}
        return [method for method in methods if method not in known] if known else []

    def of(self, methods: Sequence[str]) -> "Result":
        """The rows of these methods, in this order."""
        place = {method: index for index, method in enumerate(methods)}
        rows = sorted((row for row in self.rows if row.method in place), key=lambda row: place[row.method])
        return self._replace(rows=tuple(rows))


class Batch(NamedTuple):
    """A line of the journal of ``evaluate``."""

    results: tuple[Result, ...]
    seconds: dict[str, float]  # that each method took for its maps


class Journal:
    """The files of a folder, and of these the one that a process appends to; used as a context manager.

    Args:
        folder: of the journals, which is made if need be.
        process: number of the process.

    Raises:
        OSError: if the folder cannot be made or written to.
    """

    def __init__(self, folder: Path, process: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / f"process-{process}.jsonl"
        self._file = self._path.open("ab")
        self._cut_torn_line()

    def __enter__(self) -> "Journal":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(OSError):  # what could not be written was told when it was
            self._file.close()

    def append(self, batch: tuple[Any, ...]) -> None:
        """Writes a batch, as nested tuples, which is on the disk when this returns.

        Raises:
            OSError: if the disk is full, say.
        """
        line = json.dumps(batch, separators=(",", ":"), allow_nan=False)
        self._file.write(line.encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())

    def _cut_torn_line(self) -> None:
        written = self._path.read_bytes()
        self._file.truncate(written.rfind(b"\n") + 1)


def read_batches(folder: Path) -> list[Batch]:
    """All finished batches of all processes, as :func:`read_journals`."""
    return list(read_journals(folder, _batch))


def measured(batches: Iterable[Batch]) -> dict[int, Result]:
    """All that is finished of each example, in one batch or another."""
    found: dict[int, Result] = {}
    for result in (own for batch in batches for own in batch.results):
        known = found.get(result.number)
        if known is not None:
            rows = {row[:3]: row for row in known.rows + result.rows}
            result = result._replace(rows=tuple(rows.values()))
        found[result.number] = result
    return found


def read_journals(folder: Path, decode: Callable[[Any], Line]) -> Iterator[Line]:
    """What is finished, one batch after the other, of all processes.

    Args:
        folder: of the journals.
        decode: makes a batch of the nested lists that it was written as.

    Raises:
        ValueError: if a file does not hold what was written to it.
    """
    for path in sorted(folder.glob("process-*.jsonl")):
        with path.open("rb") as file:
            for line in file:
                if not line.endswith(b"\n"):
                    break  # torn, or still being written: what follows by now would be its rest
                yield _decoded(line, decode, path)


def _decoded(line: bytes, decode: Callable[[Any], Line], path: Path) -> Line:
    try:
        return decode(json.loads(line))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: is damaged: {error}. Delete it to compute again what it held.") from error


def _batch(parts: Sequence[Any]) -> Batch:
    results, seconds = parts
    return Batch(
        tuple(
            Result(number, target, tuple(Row._make((*values, tuple(curve))) for *values, curve in rows))
            for number, target, rows in results
        ),
        seconds,
    )
