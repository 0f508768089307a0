"""How long each row of a case takes, beside the model's own pass right before or after it, in one process."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import torch

from benchmarks.cases import Case
from benchmarks.isolated import failure
from benchmarks.machine import keep_freed_memory
from benchmarks.rows import OWN, Row, Subject
from captum_gmar.metrics.clock import time_call

LONG = 2  # seconds, beside which the first run of a process makes no odds


class Limits(NamedTuple):
    """How much time is spent."""

    rounds: int
    enough: float  # seconds: a row that took so long in all is not run another time,
    longest: float  # and one that would take longer is left out
    fewest: int = 1  # rounds, however long they take


class Sample(NamedTuple):
    """One run of a row, with the model's own pass beside it."""

    row: str
    own: str
    seconds: float
    own_seconds: float


def take_times(
    case: Case, device: str, threads: int, limits: Limits, names: Iterable[str]
) -> tuple[list[Sample], dict[str, str]]:
    """Run each row of these names in rounds; return its samples, and the reasons of rows that cannot be measured."""
    keep_freed_memory()
    torch.set_num_threads(threads)
    subject = Subject(case, device)
    rows, reasons = _warm_rows(subject, limits, names)
    samples: list[Sample] = []
    spent: Counter[str] = Counter()
    for number in range(limits.rounds):
        due = {name: row for name, row in rows.items() if number < limits.fewest or spent[name] < limits.enough}
        for couple in couples(due, backwards=number % 2 == 1):
            taken, failed = _take(subject, {name: rows[name] for name in couple})
            samples += taken
            spent.update({sample.row: sample.seconds for sample in taken})  # type: ignore[dict-item]
            reasons |= failed
            rows = {name: row for name, row in rows.items() if name not in failed}
    return samples, reasons


def _warm_rows(subject: Subject, limits: Limits, names: Iterable[str]) -> tuple[dict[str, Row], dict[str, str]]:
    """Return the rows that run here and within the limits, each run once unless it takes long, and others' reasons."""
    own: dict[str, float] = {}
    rows, reasons = {}, {}
    for name in names:
        try:
            row = subject.row(name)
            if row.own not in own:
                own[row.own] = _warm(subject.own(row.own), subject.inputs.device)
            estimate = row.passes * own[row.own]
            if estimate < min(LONG, limits.longest):
                row.run()
        except Exception as error:
            reasons[name] = failure(error)
            continue
        if estimate > limits.longest:
            reasons[name] = f"left out: {row.passes} passes would take {estimate / 60:.0f} minutes"
        else:
            rows[name] = row
    return rows, reasons


def _warm(run: Callable[[], object], device: torch.device) -> float:
    """Return the seconds of the second run if the first took no long time."""
    first = _seconds(run, device)
    return first if first > LONG else _seconds(run, device)


def couples(rows: Mapping[str, Row], backwards: bool) -> list[list[str]]:
    """Return pairs of rows that are compared with the same pass, which is run between the two."""
    couples = []
    for own in OWN:
        names = [name for name, row in rows.items() if row.own == own]
        couples += [names[start : start + 2] for start in range(0, len(names), 2)]
    return [couple[::-1] for couple in reversed(couples)] if backwards else couples


def _take(subject: Subject, couple: Mapping[str, Row]) -> tuple[list[Sample], dict[str, str]]:
    """Run a row, the model's own pass, and the other row; return samples, and the reasons of rows that fail."""
    own = next(iter(couple.values())).own
    taken: dict[str, float] = {}
    reasons = {}
    for place, (name, row) in enumerate(couple.items()):
        if place == 1 or len(couple) == 1:
            taken[own] = _seconds(subject.own(own), subject.inputs.device)
        try:
            taken[name] = _seconds(row.run, subject.inputs.device)
        except Exception as error:
            reasons[name] = failure(error)
    return [Sample(name, own, taken[name], taken[own]) for name in couple if name in taken], reasons


def _seconds(run: Callable[[], object], device: torch.device) -> float:
    return time_call(run, device)[1]
