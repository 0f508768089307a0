"""The files of a results folder."""

import csv
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from captum_gmar.evaluation.batches import Skipped
from captum_gmar.evaluation.data import Example
from captum_gmar.evaluation.journal import Result
from captum_gmar.evaluation.statistics import Array, Quantity, Summary
from captum_gmar.files.writing import replacing

SETTINGS = "settings.json"
DIGITS = ".9g"  # as many as a float32 has


def open_folder(folder: Path, settings: Mapping[str, Any], versions: Mapping[str, str]) -> list[str]:
    """
    Makes the folder for results of these settings, or finds that it holds such results already.

    Returns:
        What the versions were with which those results were made, where they differ.

    Raises:
        OSError: if the folder cannot be made or written to.
        ValueError: if it holds other things.
    """
    path = folder / SETTINGS
    if not path.exists():
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise ValueError(f"{folder}: must be a new or empty folder, or one of results. Got other files there.")
        folder.mkdir(parents=True, exist_ok=True)
        write_json(path, {"settings": settings, "versions": versions})
        return []
    try:
        written = json.loads(path.read_text())
        own, made_with = dict(written["settings"]), dict(written["versions"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: is damaged: {error}. Choose another folder.") from error
    asked = json.loads(json.dumps(settings))
    others = [name for name in {**asked, **own} if asked.get(name) != own.get(name)]
    if others:
        name = others[0]
        raise ValueError(
            f"{folder}: holds results of other settings: {name} is {own.get(name)!r} there and {asked.get(name)!r} "
            "here. Choose another folder, or the same settings."
        )
    return [
        f"{name} {made_with.get(name)} there, {now} here"
        for name, now in versions.items()
        if made_with.get(name) != now
    ]


def write_json(path: Path, content: object) -> None:
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def write_text(path: Path, text: str) -> None:
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_examples(path: Path, results: Iterable[Result], examples: Sequence[Example]) -> None:
    """A row for every example, method, metric and removal."""
    rows = (
        (
            *(result.number, examples[result.number].name, examples[result.number].label or "", result.target),
            *(row.method, row.metric, row.removal, format(row.value, DIGITS)),
        )
        for result in results
        for row in result.rows
    )
    write_csv(path, ["example", "path", "label", "target", "method", "metric", "removal", "value"], rows)


def write_summary(path: Path, summaries: Iterable[Summary]) -> None:
    rows = (
        (*summary.quantity, method, summary.examples, *(format(value, DIGITS) for value in estimate))
        for summary in summaries
        for method, estimate in zip(summary.methods, summary.means, strict=True)
    )
    write_csv(path, ["metric", "removal", "method", "examples", "mean", "low", "high"], rows)


def write_differences(path: Path, summaries: Iterable[Summary]) -> None:
    """Of every pair of methods once."""
    rows = (
        (*summary.quantity, *pair, summary.examples, *(format(value, DIGITS) for value in estimate))
        for summary in summaries
        for pair, estimate in summary.differences.items()
        if summary.methods.index(pair[0]) < summary.methods.index(pair[1])
    )
    write_csv(path, ["metric", "removal", "method", "other", "examples", "difference", "low", "high"], rows)


def write_curves(path: Path, found: Mapping[Quantity, Mapping[str, Array]]) -> None:
    """Means over the examples (examples, points); shares of the patches are rounded down to whole ones."""
    rows = (
        (*quantity, method, *(format(point, DIGITS) for point in points))
        for quantity, rows in found.items()
        for method, own in rows.items()
        for points in zip(np.linspace(0, 1, own.shape[1]), own.mean(0), strict=True)
    )
    write_csv(path, ["metric", "removal", "method", "share", "mean"], rows)


def write_skipped(path: Path, skipped: Sequence[Skipped]) -> None:
    """Nothing, where none were skipped."""
    if skipped:
        write_csv(path, Skipped._fields, skipped)
    else:
        path.unlink(missing_ok=True)


def fingerprint(parts: Iterable[bytes]) -> str:
    """Short, and another where anything differs."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(hashlib.sha256(part).digest())
    return digest.hexdigest()[:16]


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
