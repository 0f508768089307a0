"""What has been measured, written down as it comes, so that a run that ends early goes on where it stopped."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.exactness import Agreement
from benchmarks.memory import Peak
from benchmarks.timing import Failed, Sample
from captum_gmar.evaluation.runs.folder import open_folder

JOURNAL = "measurements.jsonl"


MESSAGES = {kind.__name__: kind for kind in (Sample, Peak, Failed, Agreement)}


@dataclass
class Found:
    """Of one case."""

    samples: dict[str, list[Sample]] = field(default_factory=dict)  # of each row
    peaks: dict[str, float] = field(default_factory=dict)  # MiB, of each row and of the model's own passes
    reasons: dict[str, str] = field(default_factory=dict)  # why a row was not measured
    agreements: list[Agreement] = field(default_factory=list)

    def add(self, message: Any) -> None:
        match message:
            case Sample():
                self.samples.setdefault(message.row, []).append(message)
            case Peak():
                self.peaks[message.row] = message.mib
            case Failed():
                self.reasons[message.row] = message.reason
            case Agreement():
                self.agreements.append(message)


class Journal:
    """The measurements of a folder.

    Args:
        folder: is made, or holds measurements of the same settings.
        settings: what is measured, and where.
        versions: with which versions.

    Raises:
        ValueError: if the folder holds other things.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any], versions: Mapping[str, str]) -> None:
        self.differing = open_folder(folder, settings, versions)
        self.path = folder / JOURNAL
        self.found: dict[str, Found] = {}
        lines = self.path.read_text().splitlines() if self.path.exists() else []
        for case, kind, *values in map(json.loads, lines):
            self.case(case).add(MESSAGES[kind](*values))

    def case(self, case: object) -> Found:
        return self.found.setdefault(str(case), Found())

    def add(self, case: object, message: Any) -> None:
        """Of a case, what was found out about a row."""
        self.case(case).add(message)
        with self.path.open("a") as file:
            file.write(json.dumps([str(case), type(message).__name__, *message]) + "\n")
