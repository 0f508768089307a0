"""From single runs to what the report says of a row."""

import statistics
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from benchmarks.cases import Case
from benchmarks.measuring import Found, Measurements
from benchmarks.rows import OWN
from benchmarks.timing import Sample


class Spread(NamedTuple):
    """The middle of several numbers, and what the middle half of them lies between."""

    median: float
    low: float
    high: float


class Line(NamedTuple):
    """What was found out about a row of a case. What is not known is None."""

    row: str
    own: str | None  # what it is compared with
    seconds: float | None  # the median
    ratio: Spread | None  # of its time to that of the pass beside it
    rounds: int
    mib: float | None
    memory_ratio: float | None
    reason: str | None

    @property
    def is_own(self) -> bool:
        return self.row in OWN


class Growth(NamedTuple):
    """How a row's cost grows: exponents, and what was measured at each size."""

    row: str
    time: float | None
    memory: float | None
    excess: float | None  # of the memory above the model's own pass
    sizes: tuple[int, ...]
    lines: tuple[Line, ...]
    excess_mib: tuple[float, ...]


def spread(numbers: Sequence[float]) -> Spread:
    """Return the median and the quartiles."""
    median, low, high = map(float, np.percentile(numbers, (50, 25, 75)))
    return Spread(median, low, high)


def fitted_exponent(sizes: Sequence[float], costs: Sequence[float]) -> float | None:
    """Return the exponent p of the power law cost = c · size^p that fits best, by least squares of the logarithms.

    Costs that are not above zero are left out, as they have no logarithm; with fewer than three left there is no p.
    """
    points = [(size, cost) for size, cost in zip(sizes, costs, strict=True) if cost > 0]
    if len(points) < 3:
        return None
    logarithms = np.log(np.array(points))
    return float(np.polyfit(logarithms[:, 0], logarithms[:, 1], 1)[0])


def lines(found: Found, names: Sequence[str]) -> list[Line]:
    """Return lines of the model's own passes, and of each row."""
    own = {own: [s.own_seconds for taken in found.samples.values() for s in taken if s.own == own] for own in OWN}
    first = [
        Line(name, None, statistics.median(taken), None, len(taken), found.peaks.get(name), None, None)
        for name, taken in own.items()
        if taken
    ]
    return first + [_line(found, name) for name in names]


def grown(measurements: Measurements, what: str, cases: Sequence[Case], names: Sequence[str]) -> list[Growth]:
    """Return lines of the model's own passes, and of each row."""
    by_case = [{line.row: line for line in lines(measurements.get(str(case), Found()), names)} for case in cases]
    sizes = [_size(what, case) for case in cases]
    found = []
    for name in (*OWN[:2], *names):
        measured = [(size, own) for size, own in zip(sizes, by_case, strict=True) if name in own]
        points = [(size, own[name], own) for size, own in measured if own[name].seconds is not None]
        if points:
            found.append(_growth(name, points))
    return found


def _line(found: Found, name: str) -> Line:
    taken = found.samples.get(name, [])
    own = taken[0].own if taken else None
    mib, beside = found.peaks.get(name), found.peaks.get(own or "")
    return Line(
        name,
        own,
        statistics.median(sample.seconds for sample in taken) if taken else None,
        spread(_ratios(taken)) if taken else None,
        len(taken),
        mib,
        mib / beside if mib is not None and beside else None,
        found.reasons.get(name),
    )


def _ratios(taken: Sequence[Sample]) -> list[float]:
    return [sample.seconds / sample.own_seconds for sample in taken]


def _size(what: str, case: Case) -> int:
    return {"tokens": case.tokens, "layers": case.layers or 0, "images of a batch": case.batch}[what]


def _growth(name: str, points: Sequence[tuple[int, Line, dict[str, Line]]]) -> Growth:
    sizes, own_lines, _ = zip(*points, strict=True)
    excess = [(line.mib or 0.0) - (beside[line.own].mib or 0.0) if line.own else 0.0 for _, line, beside in points]
    return Growth(
        name,
        fitted_exponent(sizes, [line.seconds for line in own_lines]),
        fitted_exponent(sizes, [line.mib or 0.0 for line in own_lines]),
        fitted_exponent(sizes, excess),
        sizes,
        own_lines,
        tuple(excess),
    )
