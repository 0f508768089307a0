"""What was measured of an example."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from captum_gmar.evaluation.runs.journal import Record


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

    def only(self, methods: Sequence[str]) -> "Result":
        """The rows of these methods, in this order."""
        place = {method: index for index, method in enumerate(methods)}
        rows = sorted((row for row in self.rows if row.method in place), key=lambda row: place[row.method])
        return self._replace(rows=tuple(rows))


def results_from(records: Mapping[int, Sequence[Record]]) -> dict[int, Result]:
    """By the number of the example, of which several records may hold several methods; of two alike, the later."""
    return {number: _result(number, of_one) for number, of_one in records.items()}


def _result(number: int, records: Sequence[Record]) -> Result:
    rows = {row[:3]: row for record in records for row in map(_row, record.values)}
    return Result(number, records[-1].target, tuple(rows.values()))


def _row(values: Sequence[Any]) -> Row:
    try:
        method, metric, removal, value, curve = values
        return Row(method, metric, removal, float(value), tuple(curve))
    except (TypeError, ValueError) as error:
        raise ValueError(f"the journal is damaged: {error}. Delete it to compute again what it held.") from error
