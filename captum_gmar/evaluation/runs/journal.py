"""What is finished, kept so that a run that was killed goes on where it stopped.

Every process appends to a file of its own, one line per batch of examples, written whole to the disk before the next
batch begins. A line that a kill has torn has no end and is cut off when the file is opened again.
"""

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from captum_gmar.evaluation.data.example import Identity


class Record(NamedTuple):
    """What a batch has found out about an example."""

    example: Identity
    target: int  # the class that was explained
    values: Any  # nested lists of numbers and names


class Batch(NamedTuple):
    """A line of a journal."""

    records: tuple[Record, ...]
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

    def append(self, batch: Batch) -> None:
        """Writes a batch, which is on the disk when this returns.

        Raises:
            OSError: if the disk is full, say.
            ValueError: if a number is NaN or infinite.
        """
        line = json.dumps(batch, separators=(",", ":"), allow_nan=False)
        self._file.write(line.encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())

    def _cut_torn_line(self) -> None:
        written = self._path.read_bytes()
        self._file.truncate(written.rfind(b"\n") + 1)


def read_batches(folder: Path) -> Iterator[Batch]:
    """All finished batches of all processes.

    Args:
        folder: of the journals, which may be absent.

    Raises:
        ValueError: if a file does not hold what was written to it.
    """
    for path in sorted(folder.glob("process-*.jsonl")):
        with path.open("rb") as file:
            for line in file:
                if not line.endswith(b"\n"):
                    break  # torn, or still being written: what follows by now would be its rest
                yield _batch_of(line, path)


def _batch_of(line: bytes, path: Path) -> Batch:
    try:
        records, seconds = json.loads(line)
        return Batch(tuple(Record(Identity(*example), *rest) for example, *rest in records), dict(seconds))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: is damaged: {error}. Delete it to compute again what it held.") from error
