"""How long each row of a case takes, beside the model's own pass right before or after it, in one process."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

import torch

from benchmarks.cases import Case
from benchmarks.isolated import Send, failure
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


class Started(NamedTuple):
    """A row is about to be run."""

    row: str


class Sample(NamedTuple):
    """One run of a row, with the model's own pass beside it."""

    row: str
    own: str
    seconds: float
    own_seconds: float


class Failed(NamedTuple):
    """A row cannot be measured."""

    row: str
    reason: str


def take_times(send: Send, case: Case, device: str, threads: int, limits: Limits, wanted: Mapping[str, int]) -> None:
    """Sends what it finds as it goes.

    Args:
        send: takes a message.
        case: which model and images.
        device: where.
        threads: of the processor.
        limits: on time.
        wanted: how often each row is to be run.
    """
    keep_freed_memory()
    torch.set_num_threads(threads)
    subject = Subject(case, device)
    rows = dict(_warm_rows(send, subject, limits, wanted))
    taken = dict.fromkeys(rows, 0.0)
    for number in range(max(wanted.values())):
        running = [name for name in rows if number < limits.fewest or taken[name] < limits.enough]
        due = {name: rows[name] for name in running if number < wanted[name]}
        for couple in couples(due, backwards=number % 2 == 1):
            samples = _take(subject, {name: rows[name] for name in couple}, send)
            for sample in samples:
                taken[sample.row] += sample.seconds
                send(sample)
            for name in set(couple) - {sample.row for sample in samples}:
                del rows[name]


def _warm_rows(send: Send, subject: Subject, limits: Limits, names: Iterable[str]) -> Iterator[tuple[str, Row]]:
    """Those that run here and within the limits, each run once before, unless it takes long."""
    own: dict[str, float] = {}
    for name in names:
        send(Started(name))
        try:
            row = subject.row(name)
            if row.own not in own:
                own[row.own] = _warm(subject.own(row.own), subject.inputs.device)
            estimate = row.passes * own[row.own]
            if estimate > limits.longest:
                raise TimeoutError(f"left out: {row.passes} passes would take {estimate / 60:.0f} minutes")
            if estimate < LONG:
                row.run()
        except Exception as error:
            send(Failed(name, str(error) if isinstance(error, TimeoutError) else failure(error)))
        else:
            yield name, row


def _warm(run: Callable[[], object], device: torch.device) -> float:
    """Seconds, of the second run if the first took no long time."""
    first = _seconds(run, device)
    return first if first > LONG else _seconds(run, device)


def couples(rows: Mapping[str, Row], backwards: bool) -> list[list[str]]:
    """Pairs of rows that are compared with the same pass, which is run between the two."""
    couples = []
    for own in OWN:
        names = [name for name, row in rows.items() if row.own == own]
        couples += [names[start : start + 2] for start in range(0, len(names), 2)]
    return [couple[::-1] for couple in reversed(couples)] if backwards else couples


def _take(subject: Subject, couple: Mapping[str, Row], send: Send) -> list[Sample]:
    """Of a row, the model's own pass, and the other row; of a row that fails there is none."""
    own = next(iter(couple.values())).own
    taken: dict[str, float] = {}
    for place, (name, row) in enumerate(couple.items()):
        if place == 1 or len(couple) == 1:
            taken[own] = _seconds(subject.own(own), subject.inputs.device)
        send(Started(name))
        try:
            taken[name] = _seconds(row.run, subject.inputs.device)
        except Exception as error:
            send(Failed(name, failure(error)))
    return [Sample(name, own, taken[name], taken[own]) for name in couple if name in taken]


def _seconds(run: Callable[[], object], device: torch.device) -> float:
    return time_call(run, device)[1]
