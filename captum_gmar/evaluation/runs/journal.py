"""Measurements as they are kept, so that a run that was killed goes on where it stopped.

Every process appends to a file of its own, one line per batch of examples, written whole to the disk before the next
batch begins. A line that a kill has torn has no end and is cut off when the file is opened again.
"""

import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from captum_gmar.evaluation.data.example import Identity


class Record(NamedTuple):
    """Measurements of an example, of some methods."""

    example: Identity
    target: int  # the class that was explained
    values: Any  # nested lists of numbers and names


class Batch(NamedTuple):
    """A line of a journal."""

    records: tuple[Record, ...]
    seconds: dict[str, float]  # that each method took for its maps


@contextmanager
def open_journal(folder: Path, process: int) -> Iterator[Callable[[Batch], None]]:
    """Yield a function that appends a batch to the file of a process; it is on the disk when the function returns."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"process-{process}.jsonl"
    file = path.open("ab")

    def append(batch: Batch) -> None:
        line = json.dumps(batch, separators=(",", ":"), allow_nan=False)
        file.write(line.encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())

    try:
        file.truncate(path.read_bytes().rfind(b"\n") + 1)  # without a torn line
        yield append
    finally:
        with suppress(OSError):  # append has raised what could not be written
            file.close()


def read_batches(folder: Path) -> Iterator[Batch]:
    """Yield all finished batches of all processes; none where the folder is absent."""
    for path in sorted(folder.glob("process-*.jsonl")):
        with path.open("rb") as file:
            for line in file:
                if not line.endswith(b"\n"):
                    break  # torn, or still being written: what follows by now would be its rest
                yield _parse_batch(line, path)


def _parse_batch(line: bytes, path: Path) -> Batch:
    try:
        records, seconds = json.loads(line)
        return Batch(tuple(Record(Identity(*example), *rest) for example, *rest in records), dict(seconds))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path} cannot be read: it is damaged, {error}. Delete it to start again.") from error


class Row(NamedTuple):
    """One number of an example."""

    method: str
    metric: str
    removal: str  # "" for metrics that remove nothing
    value: float
    curve: tuple[float, ...] = ()  # of which the value is the area


class Result(NamedTuple):
    """All measurements of an example."""

    number: int  # of the example in the data
    target: int  # the class that was explained
    rows: tuple[Row, ...]

    def only(self, methods: Sequence[str]) -> "Result":
        """Keep the rows of these methods, in this order."""
        place = {method: index for index, method in enumerate(methods)}
        rows = sorted((row for row in self.rows if row.method in place), key=lambda row: place[row.method])
        return self._replace(rows=tuple(rows))


def result_of(number: int, records: Sequence[Record]) -> Result:
    """Join the records of an example, which may hold several methods; of two values of one row the last counts."""
    rows = {row[:3]: row for record in records for row in map(_row, record.values)}
    return Result(number, records[-1].target, tuple(rows.values()))


def missing_methods(methods: Iterable[str], records: Sequence[Record]) -> list[str]:
    """Return the methods, or controls, without rows. Where nothing has rows there is nothing to measure."""
    known = {row.method for record in records for row in map(_row, record.values)}
    return [method for method in methods if method not in known] if known else []


def _row(values: Sequence[Any]) -> Row:
    try:
        method, metric, removal, value, curve = values
        return Row(method, metric, removal, float(value), tuple(curve))
    except (TypeError, ValueError) as error:
        raise ValueError(f"the journal cannot be read: it is damaged, {error}. Delete it to start again.") from error
