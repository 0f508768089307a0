"""The tables of a results folder."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from captum_gmar.evaluation.runs.batches import Skipped
from captum_gmar.files.writing import write_csv

Records: TypeAlias = list[dict[str, Any]]
"""Rows for ``pandas.DataFrame``, and of CSV files."""

DIGITS = ".9g"  # as many as a float32 has


def write_records(path: Path, records: Sequence[Mapping[str, Any]]) -> None:
    """A row for each; nothing is written of none.

    Raises:
        OSError: if it cannot be written.
    """
    if records:
        write_csv(path, list(records[0]), (list(map(_written, record.values())) for record in records))


def write_skipped(path: Path, skipped: Iterable[Skipped]) -> None:
    """A row for each; nothing is written of none, and what stood there goes."""
    path.unlink(missing_ok=True)
    write_records(path, [skip._asdict() for skip in skipped])


def _written(value: object) -> object:
    return format(value, DIGITS) if isinstance(value, float) else value
