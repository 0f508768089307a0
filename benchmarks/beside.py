"""What was counted beside what was measured: how near a GPU comes to what its bytes, products and launches allow."""

from collections.abc import Callable, Iterator, Mapping, Sequence

from benchmarks import counting
from benchmarks.cases import Case
from benchmarks.isolated import failure
from benchmarks.summary import Line
from captum_gmar.attr.catalogue import OURS
from captum_gmar.files.markdown import table

HEADER = ["case", "row", "measured", "counted", "launches, counted"]


def beside(tables: Mapping[Case, Sequence[Line]], count: Callable[[Case, str], counting.Ratio] = counting.count) -> str:
    """A table of the time ratios of our methods, measured and counted; of what cannot be counted, why."""
    return table(HEADER, _rows(tables, count))


def _rows(tables: Mapping[Case, Sequence[Line]], count: Callable[[Case, str], counting.Ratio]) -> Iterator[list[str]]:
    for case, lines in tables.items():
        for line in lines:
            if line.row not in OURS or line.ratio is None:
                continue
            try:
                ratio = count(case, line.row)
                counted = [f"{ratio.seconds:.2f} ×", f"{ratio.operations:.2f} ×"]
            except Exception as error:  # what was measured is not lost for it
                counted = [failure(error), ""]
            yield [str(case), line.row, f"{line.ratio.median:.2f} ×", *counted]
