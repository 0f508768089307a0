"""Bad input of every kind is answered as it should be. ``python -m tools.bad_input`` tries more pictures and kills."""

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

pytest.importorskip("tools.bad_input.rows", reason="the tools are not installed; they stand in a checkout")

from tools.bad_input import calls, damaged, options
from tools.bad_input.nursery import Nursery
from tools.bad_input.rows import Place, Row
from tools.bad_input.runs import EVALUATE, HEADS, Runs

ROWS = [*options.ROWS, *damaged.ROWS, *calls.ROWS]
EVERY = 3  # of rows that draw pictures one in so many runs here


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    with TemporaryDirectory() as folder:  # pytest's own folders are closed to all but their owner
        yield Place(Path(folder))


@pytest.fixture(scope="module")
def nursery(place: Place) -> Iterator[Nursery]:
    with Nursery(place.root / "models" / "vit", draws=False) as nursery:
        yield nursery


def groups(rows: list[Row]) -> list[str]:
    return list(dict.fromkeys(row.group for row in rows))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch's own tracing and quantising
@pytest.mark.parametrize("group", groups(ROWS))
def test_bad_input_is_answered(group: str, place: Place) -> None:
    rows = [row for row in ROWS if row.group == group]
    few = rows[::EVERY] if group == "images" else rows
    faults = {row.name: fault for row in few if (fault := row.fault(place)) is not None}
    assert faults == {}


@pytest.mark.parametrize("words", [EVALUATE, HEADS], ids=["evaluate", "heads"])
def test_nothing_is_lost_by_a_run_that_ends_early(words: tuple[str, ...], place: Place, nursery: Nursery) -> None:
    """Five kills at random moments, a disk that is full at several, two runs at once, and processes side by side."""
    runs = Runs(place, nursery, words)
    faults = [*runs.killed(5), *runs.full_disk(), *runs.two_at_once()]
    faults += [*runs.processes(broken=False), *runs.processes(broken=True)]
    assert len(faults) == 5 + 3 + 1 + 2
    assert [fault for fault in faults if fault[-1] is not None] == []
