"""The parts of a preset's measurement."""

import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch

from benchmarks.cases import Case
from benchmarks.exactness import Agreement, of_half_precision, of_methods
from benchmarks.isolated import failure, isolated
from benchmarks.memory import take_peaks
from benchmarks.presets import Preset
from benchmarks.rows import OWN, SEVERAL, Subject
from benchmarks.start_up import take_start_up
from benchmarks.timing import Sample, take_times

EVERYTHING = "the whole case"
START_UP = "start-up"
GMAR = "gmar-l1", "gmar-l2"


@dataclass
class Found:
    """Measurements of one case."""

    samples: dict[str, list[Sample]] = field(default_factory=dict)  # of each row
    peaks: dict[str, float] = field(default_factory=dict)  # MiB, of each row and of the model's own passes
    reasons: dict[str, str] = field(default_factory=dict)  # why a row was not measured
    agreements: list[Agreement] = field(default_factory=list)

    def add_samples(self, samples: list[Sample]) -> None:
        """Sort samples by their row."""
        for sample in samples:
            self.samples.setdefault(sample.row, []).append(sample)


Measurements = Mapping[str, Found]  # by case


class Measuring:
    """Measurements of a preset on a device and with so many threads of the processor."""

    def __init__(self, preset: Preset, device: str, threads: int) -> None:
        self.preset = preset
        self.place = device, threads
        self.found: defaultdict[str, Found] = defaultdict(Found)

    def times(self) -> None:
        """Time every row, each case in a process."""
        for case, names in self.preset.rows.items():
            with self._noting(case, "times") as found:
                samples, reasons = isolated(take_times, case, *self.place, self.preset.limits, names)
                found.add_samples(samples)
                found.reasons |= reasons

    def memory(self) -> None:
        """Measure the peak of every row, each in a process on a processor; torch tells a GPU's wherever it began."""
        for case, names in self.preset.rows.items():
            own = OWN if any(name.endswith(SEVERAL) for name in names) else OWN[:2]
            due = [name for name in (*own, *names) if name not in self.found[str(case)].reasons]
            for group in [[name] for name in due] if self.place[0] == "cpu" else [due]:
                with self._noting(case, f"memory of {', '.join(group)}", group[0]) as found:
                    peaks, reasons = isolated(take_peaks, case, *self.place, group)
                    found.peaks |= peaks
                    found.reasons |= reasons

    def start_up(self) -> None:
        """Time the commands."""
        if self.preset.start_up:
            with self._noting(START_UP, "commands") as found:
                found.add_samples(list(take_start_up(self.preset.start_up)))

    def exactness(self) -> None:
        """Compare the methods with their formulas."""
        for case in self.preset.exact:
            with self._noting(case, "exactness") as found:
                found.agreements = isolated(take_agreements, case, *self.place)

    @contextmanager
    def _noting(self, case: object, text: str, name: str = EVERYTHING) -> Iterator[Found]:
        """Give the measurements of a case to add to; an error becomes the reason why this name was not measured."""
        print(f"{case}: {text}", file=sys.stderr, flush=True)
        found = self.found[str(case)]
        try:
            yield found
        except Exception as error:
            found.reasons[name] = failure(error)


def take_agreements(case: Case, device: str, threads: int) -> list[Agreement]:
    """Return how far the methods are from their formulas."""
    torch.set_num_threads(threads)
    subject = Subject(case, device)
    of_gmar = of_half_precision(subject.model, subject.inputs, torch.bfloat16, GMAR)
    return [*of_methods(subject.model, subject.inputs), *of_gmar]
