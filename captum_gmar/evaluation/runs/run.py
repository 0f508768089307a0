"""A run over a data set: shared out among processes, and kept batch by batch."""

import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple, TypeAlias

from captum_gmar.evaluation.data.example import Example
from captum_gmar.evaluation.data.subject import versions
from captum_gmar.evaluation.runs.batches import Batches, Examples, Measure, Skipped
from captum_gmar.evaluation.runs.folder import JOURNAL, check_output, use_folder
from captum_gmar.evaluation.runs.journal import Batch, Record, open_journal, read_batches
from captum_gmar.evaluation.runs.processes import Processes
from captum_gmar.evaluation.runs.progress import Listener, count, progress, warning_listener

Methods: TypeAlias = tuple[str, ...]
Work: TypeAlias = Callable[[Methods, dict[str, float], Examples, int], list[Record]]
"""Measures examples by methods, so many in a pass of the model, and adds to the seconds of each method."""

_NAMED = 3  # examples, where there are more than a line can hold


class Kept(NamedTuple):
    """Measurements of examples as they are now."""

    records: dict[int, list[Record]]  # by number of the example, oldest first
    changed: list[str]  # names of examples whose content changed since they were measured
    batches: list[Batch]  # all there are


class Workplace(NamedTuple):
    """The place of a run, and the processes that share it."""

    folder: Path | None  # of the results; None: nothing is kept
    listener: Listener
    command: str  # for the report
    processes: Processes = Processes(0, 1)


def workplace_of_call(output: object, show_progress: bool, name: str) -> Workplace:
    """Return the place of a run that a call of this package's function ``name`` asks for."""
    listener = warning_listener(show_progress, is_kept=output is not None)
    return Workplace(check_output(output), listener, f"captum_gmar.{name}(...)")


@contextmanager
def start_run(place: Workplace, settings: Mapping[str, Any]) -> Iterator[Path]:
    """Yield the folder, which is kept for results of these settings and of these processes within the block."""
    processes = place.processes
    if place.folder is None and processes.total > 1:
        raise ValueError("several processes require output, but got none. Pass a folder that they share.")
    with ExitStack() as stack:
        folder = place.folder or Path(stack.enter_context(TemporaryDirectory()))
        opening = use_folder(folder, settings, versions(), place.listener.note)

        def check_shared() -> None:
            if not folder.is_dir():
                raise OSError(f"{folder} must be a folder that all machines share, but is not. Pass another output.")

        processes.first(lambda: stack.enter_context(opening))
        processes.together(check_shared)
        try:
            yield folder
        except OSError as error:
            reason = error.strerror or error
            raise OSError(f"{folder} cannot be written: {reason}. Run again to go on with what is kept.") from error


@dataclass
class Run:
    """A run over examples, in one of the processes that share them."""

    batches: Batches  # of all examples
    folder: Path  # of the journal
    place: Workplace
    chunk: int  # examples that are kept at once; the chunks do not depend on what is kept already

    def finish(
        self,
        numbers: Sequence[int],
        work: Work,
        methods: Methods = ("",),
        lacks: Callable[[Sequence[Record]], Iterable[str]] = lambda records: (),
        name: str | None = None,
    ) -> tuple[Kept, list[Skipped]]:
        """Measure the examples that are not kept yet. No process returns before all are done.

        ``lacks`` returns the methods that the records of an example lack; ``name`` is that of the work, for the
        progress. Return all that is kept in the first process, nothing in others, and in every process what was
        skipped.
        """
        journal, examples = self.folder / JOURNAL, self.batches.subject.examples
        kept = Kept({}, [], [])

        def find_missing() -> tuple[dict[Methods, set[int]], bool]:
            nonlocal kept
            kept = match_batches(read_batches(journal), examples)
            _report_changed(kept.changed, self.place.listener)
            missing: dict[Methods, set[int]] = {}
            for number in numbers:
                lacking = tuple(lacks(kept.records[number])) if number in kept.records else methods
                if lacking:
                    missing.setdefault(lacking, set()).add(number)
            return missing, bool(kept.records)

        missing, any_done = self.place.processes.first(find_missing)
        self.batches.any_done = self.batches.any_done or any_done
        skipped = dict[int, Skipped]()
        for lacking, chosen in missing.items():
            skips = self._share(numbers, chosen, journal, partial(self._measure, lacking, work), name)
            skipped |= {skip.number: skip for skip in skips}
        if missing and self.place.processes.is_first:
            kept = match_batches(read_batches(journal), examples)
        self._raise_failure(any(number in kept.records and not lacks(kept.records[number]) for number in numbers))
        return kept, list(skipped.values())

    def measure_once(
        self, numbers: Sequence[int], measure: Measure[Record], name: str, done: str
    ) -> tuple[list[Record], list[Skipped]]:
        """Return the last record of every example that can be measured, in the order of the data, and what was skipped.

        ``name`` is that of the work, for the progress, and ``done`` what it does to images, for the error without any.
        """
        kept, skipped = self.finish(numbers, lambda methods, seconds, *batch: measure(*batch), name=name)
        chosen = sorted({*numbers} & {*kept.records})
        records = self.place.processes.first(lambda: [kept.records[number][-1] for number in chosen])
        if not records:
            raise ValueError(f"data must hold images that can be {done}, but got none: {list_reasons(skipped)}")
        return records, skipped

    def _raise_failure(self, is_done: bool) -> None:
        """Raise the first failure if no example succeeded in the first process."""
        failures = self.batches.failures
        reasons = self.place.processes.gather(str(failures[0]) if failures else None)
        if self.place.processes.first(lambda: is_done):
            return
        for reason in filter(None, reasons):
            raise failures[0] if failures else RuntimeError(reason)

    def _measure(self, methods: Methods, work: Work, numbers: Sequence[int]) -> tuple[Batch, list[Skipped]]:
        seconds: dict[str, float] = {}
        records, skipped = self.batches.finish(numbers, partial(work, methods, seconds))
        return Batch(tuple(records), seconds), skipped

    def _share(
        self,
        numbers: Sequence[int],
        missing: Collection[int],
        journal: Path,
        work: Callable[[Sequence[int]], tuple[Batch, list[Skipped]]],
        name: str | None,
    ) -> list[Skipped]:
        """Return the skipped examples of all processes, reported if any was finished."""
        listener, done = self.place.listener, len(numbers) - len(missing)
        chunks = [
            [number for number in numbers[start : start + self.chunk] if number in missing]
            for start in range(0, len(numbers), self.chunk)
        ]
        shares = self.place.processes.share(list(filter(None, chunks)))
        finished, skipped = 0, list[Skipped]()

        def work_all() -> tuple[list[Skipped], bool]:
            nonlocal finished
            reported = 0
            with (
                open_journal(journal, self.place.processes.rank) as append,
                progress(sum(map(len, shares)), name, listener) as advance,
            ):
                for share in shares:
                    batch, skips = work(share)
                    if batch.records:
                        append(batch)
                        finished += len(batch.records)
                    skipped.extend(skips)
                    if done or finished:  # until then, the model may be to blame, and no image
                        reported += report_skipped(skipped[reported:], listener)
                    advance(len(share))
            return skipped, bool(finished)

        try:
            outcomes = self.place.processes.together(work_all)
        except KeyboardInterrupt:
            if listener.goes_on:
                listener.note(
                    f"interrupted: {done + finished} of {len(numbers)} images kept; {listener.goes_on} goes on"
                )
            raise
        if any(has_finished for _, has_finished in outcomes) and not done and not finished:
            report_skipped(skipped, listener)
        return [skip for skips, _ in outcomes for skip in skips]


def match_batches(batches: Iterable[Batch], examples: Sequence[Example]) -> Kept:
    """Return the records of examples whose content is still the same, and the names of changed examples."""
    numbers = {example.name: number for number, example in enumerate(examples)}
    same: dict[tuple[str, str, str], bool] = {}
    kept = Kept({}, [], list(batches))
    others: dict[str, None] = {}
    for record in (record for batch in kept.batches for record in batch.records):
        number = numbers.get(record.example.name)
        if number is None:
            continue
        if record.example not in same:
            same[record.example] = examples[number].is_same(record.example)
        if same[record.example]:
            kept.records.setdefault(number, []).append(record)
        else:
            others[record.example.name] = None
    kept.changed.extend(name for name in others if numbers[name] not in kept.records)
    return kept


def report_skipped(skipped: Sequence[Skipped], listener: Listener) -> int:
    """Report which examples are left out, and why; return how many these are."""
    for skip in skipped:
        listener.skip(f"{skip.name}: {skip.reason}")
    return len(skipped)


def list_reasons(skipped: Sequence[Skipped]) -> str:
    """Return a line of why the first few examples are left out."""
    few = [f"{skip.name}: {skip.reason}" for skip in skipped[:_NAMED]]
    return "; ".join(few) + ("; …" if len(skipped) > _NAMED else "")


def warn_of_skipped(skipped: Sequence[Skipped]) -> None:
    """Warn the caller in Python, at the end, of what was left out."""
    if skipped:
        warnings.warn(f"left out {count(len(skipped))}, see `skipped`: {list_reasons(skipped)}", stacklevel=3)


def _report_changed(names: Sequence[str], listener: Listener) -> None:
    if names:
        are = f"{count(len(names))} {'is' if len(names) == 1 else 'are'}"
        few = ", ".join(names[:_NAMED]) + (", …" if len(names) > _NAMED else "")
        listener.note(f"{are} not what was measured under the same name, and measured anew: {few}")
