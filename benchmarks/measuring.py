"""Goes through a preset, and measures what the journal does not hold yet."""

import time
from collections.abc import Callable, Generator, Iterable
from contextlib import closing
from typing import Any

import torch

from benchmarks.cases import Case
from benchmarks.exactness import of_half_precision, of_methods
from benchmarks.isolated import Ended, Send, isolated
from benchmarks.journal import Found, Journal
from benchmarks.memory import take_peaks
from benchmarks.presets import Preset
from benchmarks.rows import OWN, SEVERAL, Subject
from benchmarks.start_up import take_start_up
from benchmarks.timing import Failed, Limits, Started, take_times

EVERYTHING = "the whole case"
START_UP = "start-up"
GMAR = "gmar-l1", "gmar-l2"


class OutOfTime(Exception):
    """What is left is for another run."""


class Measuring:
    """One run.

    Args:
        journal: takes what is found.
        preset: what is measured.
        device: where.
        threads: of the processor.
        minutes: after which the run ends.
        say: takes a line of what is being done.
    """

    def __init__(
        self, journal: Journal, preset: Preset, device: str, threads: int, minutes: float, say: Callable[[str], None]
    ) -> None:
        self.journal = journal
        self.preset = preset
        self.place = device, threads
        self.end = time.monotonic() + 60 * minutes
        self.say = say

    def times(self) -> None:
        for case, names in self.preset.rows.items():
            while due := still_wanted(self.journal.case(case), names, self.preset.limits):
                work = isolated(take_times, case, *self.place, self.preset.limits, due)
                self._note(case, work, "times", EVERYTHING)

    def memory(self) -> None:
        for case, names in self.preset.rows.items():
            found = self.journal.case(case)
            own = OWN if any(name.endswith(SEVERAL) for name in names) else OWN[:2]
            known = {*found.peaks, *found.reasons}
            due = [name for name in (*own, *names) if known.isdisjoint({name, EVERYTHING})]
            for together in _processes(due, self.place[0]):
                work = isolated(take_peaks, case, *self.place, together)
                self._note(case, work, f"memory of {', '.join(together)}", together[0])

    def start_up(self) -> None:
        if not self.journal.case(START_UP).samples and self.preset.start_up:
            self._note(START_UP, take_start_up(self.preset.start_up), "commands", EVERYTHING)

    def exactness(self) -> None:
        for case in self.preset.exact:
            if not self.journal.case(case).agreements and EVERYTHING not in self.journal.case(case).reasons:
                self._note(case, isolated(take_agreements, case, *self.place), "exactness", EVERYTHING)

    def _note(self, case: object, messages: Generator[Any], what: str, running: str) -> None:
        """Writes down the messages; if they break off, that what was ``running`` could not be measured."""
        self.say(f"{case}: {what}")
        try:
            with closing(messages):
                for message in messages:
                    if isinstance(message, Started):
                        running = message.row
                    else:
                        self.journal.add(case, message)
                    if time.monotonic() > self.end:
                        raise OutOfTime
        except Ended as error:
            self.journal.add(case, Failed(running, str(error)))


def take_agreements(send: Send, case: Case, device: str, threads: int) -> None:
    """Sends how far the methods are from their formulas."""
    torch.set_num_threads(threads)
    subject = Subject(case, device)
    of_gmar = of_half_precision(subject.model, subject.inputs, torch.bfloat16, GMAR)
    for agreement in (*of_methods(subject.model, subject.inputs), *of_gmar):
        send(agreement)


def _processes(names: list[str], device: str) -> list[list[str]]:
    """The names by the process that measures their memory: torch tells the peak on a GPU, wherever it began."""
    return [[name] for name in names] if device == "cpu" or not names else [names]


def still_wanted(found: Found, names: Iterable[str], limits: Limits) -> dict[str, int]:
    """How often each row has still to be run."""
    wanted = {}
    for name in names:
        taken = found.samples.get(name, [])
        enough = len(taken) >= limits.fewest and sum(sample.seconds for sample in taken) >= limits.enough
        if name not in found.reasons and EVERYTHING not in found.reasons and not enough and len(taken) < limits.rounds:
            wanted[name] = limits.rounds - len(taken)
    return wanted
