"""Work that processes share, with the answers of others played."""

from typing import Any

import pytest

from captum_gmar.evaluation.runs.processes import FailedElsewhere, Processes, local_device


class Played(Processes):
    """The second of three processes, of which the others have these outcomes."""

    others: tuple[Any, Any] = ((1, None), (3, None))

    def gather(self, item):
        first, last = self.others
        return [first, item, last]


def fail():
    raise ValueError("mine")


def test_parts_make_up_the_whole():
    parts = [Processes(rank, 3).share(range(7)) for rank in range(3)]
    assert parts == [[0, 3, 6], [1, 4], [2, 5]]


def test_results_come_back_in_the_order_of_the_processes():
    assert Played(1, 3).together(lambda: 2) == [1, 2, 3]
    assert Played(1, 3).first(lambda: pytest.fail("of the first alone")) == 1
    assert Processes(0, 1).first(lambda: "mine") == "mine"


def test_a_failure_ends_every_process():
    with pytest.raises(ValueError, match="mine"):
        Played(1, 3).together(fail)
    failed = Played(1, 3)
    failed.others = ((1, None), (None, "theirs"))
    with pytest.raises(FailedElsewhere, match="theirs"):
        failed.together(lambda: 2)


@pytest.mark.parametrize("name", ["cpu", "cuda:1"])
def test_a_device_that_is_named_is_taken(name, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert local_device(name) == name
