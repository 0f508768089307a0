"""What is left of the work on a results folder: shared out among processes, and kept batch by batch."""

import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from captum_gmar.evaluation.data.example import Example
from captum_gmar.evaluation.runs.batches import Skipped
from captum_gmar.evaluation.runs.folder import opened
from captum_gmar.evaluation.runs.journal import Batch, Journal, Record, read_batches
from captum_gmar.evaluation.runs.processes import Processes
from captum_gmar.evaluation.runs.progress import Listener, count, progress

Work: TypeAlias = Callable[[Sequence[int]], tuple[Batch, list[Skipped]]]
"""Takes numbers of examples; a batch for the journal, and what was skipped."""

_NAMED = 3  # examples, where there are more than a line can hold


class Kept(NamedTuple):
    """What is finished of examples, as they are now."""

    records: dict[int, list[Record]]  # by number of the example, oldest first
    changed: list[str]  # names of examples that are others than those that were measured under these names
    batches: list[Batch]  # all there are


class Finished(NamedTuple):
    """What came of a process's part of the work."""

    batches: list[Batch]  # of this process
    skipped: list[Skipped]  # of all processes


@contextmanager
def begun(
    folder: Path, settings: Mapping[str, Any], versions: Mapping[str, str], processes: Processes, listener: Listener
) -> Iterator[None]:
    """Within the block, the folder is for results of these settings and of these processes alone.

    Raises:
        OSError, ValueError: as :func:`~captum_gmar.evaluation.runs.folder.opened`, or if it cannot be seen from here,
            or not be written to.
    """

    def check_shared() -> None:
        if not folder.is_dir():
            raise OSError(f"{folder}: must be a folder that all machines share")

    with ExitStack() as stack:
        processes.first(lambda: stack.enter_context(opened(folder, settings, versions, listener.note)))
        processes.together(check_shared)
        try:
            yield
        except OSError as error:
            reason = error.strerror or error
            raise OSError(f"{folder}: cannot be written: {reason}. What is finished is kept.") from error


def match(batches: Iterable[Batch], examples: Sequence[Example]) -> Kept:
    """Which records are of the examples as they are now; those of others, and of changed ones, are left out."""
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


def finish(
    numbers: Sequence[int],
    done: Collection[int],
    chunk: int,
    journal: Path,
    processes: Processes,
    work: Work,
    listener: Listener,
    name: str | None = None,
) -> Finished:
    """Does the work on all examples that are not done yet. Where nothing is done in the end, nothing is told either.

    Args:
        numbers: of the examples.
        done: those that are.
        chunk: how many are finished together. Which these are does not depend on what is done.
        journal: the folder of the journals.
        processes: that share the work. None leaves before all are done.
        work: on a batch of it.
        listener: told what is skipped, and how far it is.
        name: of the work, for those who wait.

    Raises:
        Exception: whatever the work raises.
        FailedElsewhere: if it failed in another process.
    """
    chunks = [
        [number for number in numbers[start : start + chunk] if number not in done]
        for start in range(0, len(numbers), chunk)
    ]
    batches = processes.share([some for some in chunks if some])
    finished = Finished([], [])

    def do_all() -> tuple[list[Skipped], bool]:
        total, said = sum(map(len, batches)), 0
        with Journal(journal, processes.rank) as kept, progress(total, name, listener) as advance:
            for batch in batches:
                line, skipped = work(batch)
                if line.records:
                    kept.append(line)
                    finished.batches.append(line)
                finished.skipped.extend(skipped)
                if done or finished.batches:  # until then, the model may be to blame, and no image
                    said += tell_skipped(finished.skipped[said:], listener)
                advance(len(batch))
        return finished.skipped, bool(finished.batches)

    try:
        shares = processes.together(do_all)
    except KeyboardInterrupt:
        if listener.goes_on:
            images = len(done) + sum(len(batch.records) for batch in finished.batches)
            listener.note(f"interrupted: {images} of {len(numbers)} images kept; {listener.goes_on} goes on")
        raise
    any_finished = any(has_finished for _, has_finished in shares)
    if any_finished and not done and not finished.batches:
        tell_skipped(finished.skipped, listener)
    return finished._replace(skipped=[skip for share, _ in shares for skip in share])


def tell_skipped(skipped: Sequence[Skipped], listener: Listener) -> int:
    """Says which examples are left out, and why; how many these are."""
    for skip in skipped:
        listener.skip(f"{skip.name}: {skip.reason}")
    return len(skipped)


def tell_changed(names: Sequence[str], listener: Listener) -> None:
    """Says which examples are others than those that were measured under these names."""
    if names:
        are = f"{count(len(names))} {'is' if len(names) == 1 else 'are'}"
        few = ", ".join(names[:_NAMED]) + (", …" if len(names) > _NAMED else "")
        listener.note(f"{are} not what was measured under the same name, and measured anew: {few}")


def reasons(skipped: Sequence[Skipped]) -> str:
    """Why examples are left out: of the first few, in a line."""
    few = [f"{skip.name}: {skip.reason}" for skip in skipped[:_NAMED]]
    return "; ".join(few) + ("; …" if len(skipped) > _NAMED else "")


def warn_of_skipped(skipped: Sequence[Skipped]) -> None:
    """Tells whoever called from Python, at the end, what was left out."""
    if skipped:
        warnings.warn(f"left out {count(len(skipped))}, see `skipped`: {reasons(skipped)}", stacklevel=3)


def extended(kept: Kept, batches: Sequence[Batch], examples: Sequence[Example]) -> Kept:
    """With batches that this process has just finished."""
    numbers = {example.name: number for number, example in enumerate(examples)}
    records = {number: list(of_one) for number, of_one in kept.records.items()}
    for record in (record for batch in batches for record in batch.records):
        records.setdefault(numbers[record.example.name], []).append(record)
    return Kept(records, kept.changed, [*kept.batches, *batches])


def read_kept(journal: Path, examples: Sequence[Example]) -> Kept:
    """What the journal keeps of the examples, as :func:`match`."""
    return match(read_batches(journal), examples)
