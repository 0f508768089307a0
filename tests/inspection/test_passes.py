"""Times of calls that take turns, so that a busy moment meets them all and their times compare."""

import torch

from captum_gmar.inspection.passes import time_in_turns
from captum_gmar.metrics import clock as device_clock

CPU = torch.device("cpu")


class Clock:
    """Time that passes only when something is called."""

    def __init__(self):
        self.now, self.calls = 0.0, []

    def perf_counter(self):
        return self.now

    def call(self, name, *seconds):
        left = list(seconds)

        def run():
            self.calls.append(name)
            self.now += left.pop(0) if len(left) > 1 else left[0]
            return name, len(self.calls)

        return run


def test_calls_take_turns_with_the_reference_before_each(monkeypatch):
    """While the machine is busy, in the second round, all take ten times as long: the medians agree none the less."""
    clock = Clock()
    monkeypatch.setattr(device_clock, "time", clock)
    turns = []
    calls = {"a": clock.call("a", 0.2, 2.0, 0.2), "b": clock.call("b", 0.3, 3.0, 0.3)}
    reference = clock.call("reference", 0.1, 0.1, 1.0, 1.0, 0.1, 0.1)
    times, reference_seconds = time_in_turns(calls, reference, CPU, 3, lambda: turns.append(True))
    assert clock.calls == ["reference", "a", "reference", "b"] * 3
    assert [round(seconds, 6) for seconds in times["a"].seconds] == [0.2, 2.0, 0.2]
    assert times["b"].returned == ("b", 12)
    assert round(reference_seconds, 6) == 0.1
    assert len(turns) == 6


def test_what_takes_long_is_not_run_again(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(device_clock, "time", clock)
    turns = []
    calls = {"slow": clock.call("slow", 4.0), "quick": clock.call("quick", 0.1)}
    times, _ = time_in_turns(calls, clock.call("reference", 1.0), CPU, 3, lambda: turns.append(True))
    assert [len(times[name].seconds) for name in calls] == [2, 3]
    assert len(turns) == 6  # a bar of progress comes to its end
