"""Runs that are killed, run out of disk, share a folder or are many: nothing is lost, and the same command ends it."""

from __future__ import annotations

import csv
import random
import shutil
import signal
import socket
from collections.abc import Callable, Sequence
from pathlib import Path

from tools.bad_input.nursery import Ended, Nursery
from tools.bad_input.rows import Place

EVALUATE = ("evaluate", "photos.csv", "--model", "MODEL", "--methods", "rollout,gmar-l1", "--metrics")
EVALUATE = (*EVALUATE, "insertion,deletion", "--steps", "2", "--batch-size", "1", "--output", "results")
HEADS = ("heads", "photos", "--model", "MODEL", "--scores", "all", "--batch-size", "1", "--output", "results")
TABLES = {"evaluate": "examples.csv", "heads": "heads.csv"}
Fault = tuple[str, str, str | None]  # the group, what was tried, and what is wrong with what came of it


class Runs:
    """All runs of one kind on one command, against what an undisturbed run of it leaves."""

    def __init__(self, place: Place, nursery: Nursery, words: Sequence[str]) -> None:
        self.place, self.nursery, self.words = place, nursery, place.words(words)
        self.table = TABLES[words[0]]
        folder = place.fresh()
        (ended,) = nursery.run(self.words, folder)
        if ended.status:
            raise RuntimeError(f"{' '.join(words)} does not run: {ended.error}")
        self.seconds = ended.seconds
        self.names = _names(folder / "results")
        self.rows = _rows(folder / "results" / self.table)

    def fault(self, folder: Path) -> str | None:
        """Run the same command again, undisturbed; what is wrong with its results, or None."""
        (ended,) = self.nursery.run(self.words, folder)
        if ended.status:
            return f"the same command ends with {ended.status}: {_last(ended)}"
        return self.compared(folder)

    def compared(self, folder: Path) -> str | None:
        """What is other in the results than in those of the undisturbed run, or None."""
        if (names := _names(folder / "results")) != self.names:
            return f"files {sorted(names ^ self.names)}"
        if _rows(folder / "results" / self.table) != self.rows:
            return f"other numbers in {self.table}"
        return None

    def killed(self, count: int, seed: int = 0) -> list[Fault]:
        """Kill runs at random moments, go on in the same folder until it is done, and compare."""
        moments, faults, killed = random.Random(seed), [], 0
        while killed < count:
            folder, here = self.place.fresh(), 0
            while killed + here < count:
                moment = moments.uniform(0, self.seconds)
                number = moments.choice([signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
                (ended,) = self.nursery.run(self.words, folder, kill_after=moment, with_signal=number)
                if ended.status not in (-number, 130):
                    break
                here += 1
            fault = self.fault(folder)
            faults += [("kills", f"{self.words[0]}, killed {here} times", fault)] * here
            killed += here
        return faults

    def full_disk(self) -> list[Fault]:
        """Let no file grow beyond some size: one line, nothing torn, and with room again the same results."""
        faults: list[Fault] = []
        for size in (500, 30_000):
            folder = self.place.fresh()
            (ended,) = self.nursery.run(self.words, folder, file_size=size)
            fault = _unclear(ended) or self.fault(folder)
            faults.append(("full disk", f"{self.words[0]}, {size} bytes a file", fault))
        for out in ("/dev/full",):
            folder = self.place.fresh()
            (ended,) = self.nursery.run(self.words, folder, out=out)
            fault = _unclear(ended) or self.fault(folder)
            faults.append(("full disk", f"{self.words[0]}, stdout {out}", fault))
        return faults

    def two_at_once(self) -> list[Fault]:
        """Start the same command twice: one does it, or both do, but neither twice, and the other says why."""
        folder = self.place.fresh()
        ends = self.nursery.run(self.words, folder, copies=({}, {}))
        fault = next(filter(None, (_unclear(ended) for ended in ends)), None)
        if fault is None and not any(ended.status == 0 for ended in ends):
            fault = f"none of them ends it: {_last(ends[0])}"
        return [("two runs", f"{self.words[0]} twice at once", fault or self.compared(folder))]

    def processes(self, broken: bool) -> list[Fault]:
        """Start two processes as torchrun does, on good images or with one that cannot be read."""
        folder = self.place.fresh()
        if broken:
            shutil.copy(folder / "photos.csv", folder / "photos" / "9.png")
            with (folder / "photos.csv").open("a") as table:
                table.write("photos/9.png,0\n")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        shared = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        ranks = [{**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(2)]
        ends = self.nursery.run(self.words, folder, copies=ranks)
        name = f"{self.words[0]}, two processes" + (", a broken image" if broken else "")
        if max(ended.status for ended in ends) != broken or min(ended.status for ended in ends) < 0:
            return [("torchrun", name, f"exit status {[ended.status for ended in ends]}: {_last(ends[0])}")]
        names = {name for name in _names(folder / "results") if "skipped" not in name and "process-" not in name}
        if names != {name for name in self.names if "process-" not in name}:
            return [("torchrun", name, f"files {sorted(names ^ self.names)}")]
        rows = _rows(folder / "results" / self.table)
        return [("torchrun", name, None if rows == self.rows else f"other numbers in {self.table}")]


def all_runs(place: Place, kills: int, kinds: Sequence[str] = ("evaluate", "heads")) -> list[Fault]:
    """Kill both commands, half of the times each, and try all else once."""
    faults: list[Fault] = []
    with Nursery(place.root / "models" / "vit") as nursery:
        for words in (EVALUATE, HEADS):
            runs = Runs(place, nursery, words)
            faults += runs.killed(kills // 2) + runs.full_disk() + runs.two_at_once()
            faults += runs.processes(broken=False) + runs.processes(broken=True)
    return faults


def _unclear(ended: Ended) -> str | None:
    """What is wrong with how a run ended that had a reason to fail, or None."""
    if ended.status not in (0, 1, 2):
        return f"exit status {ended.status}: {_last(ended)}"
    if "Traceback" in ended.error:
        return f"traceback: {_last(ended)}"
    lines = [line for line in ended.error.splitlines() if "error: " in line]
    return "it fails without a word" if ended.status and not lines else None


def _last(ended: Ended) -> str:
    return (ended.error.strip().splitlines() or ["nothing said"])[-1]


def _names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def _rows(path: Path) -> list[list[str]]:
    """The lines of a table in order, without times, which no two runs share."""
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        rows = list(csv.reader(file))
    kept: Callable[[list[str]], list[str]] = lambda row: [  # noqa: E731
        _rounded(cell) for cell, name in zip(row, rows[0], strict=True) if name != "seconds"
    ]
    return sorted(map(kept, rows))


def _rounded(cell: str) -> str:
    try:
        return f"{float(cell):.6g}"
    except ValueError:
        return cell
