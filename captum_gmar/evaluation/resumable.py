"""What is left of the work on a results folder: shared out among processes, and kept batch by batch."""

import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tqdm import tqdm

from captum_gmar.cli.terminal import CommandError, report
from captum_gmar.evaluation.batches import Skipped
from captum_gmar.evaluation.journal import Journal
from captum_gmar.evaluation.processes import Processes
from captum_gmar.evaluation.subject import versions
from captum_gmar.evaluation.tables import open_folder

Work = Callable[[Sequence[int]], tuple[tuple[Any, ...] | None, list[Skipped]]]  # takes numbers of examples


def begin(folder: Path, settings: Mapping[str, Any], processes: Processes) -> None:
    """Makes the folder for results of these settings, or finds that it holds such results, in all processes.

    Raises:
        OSError, ValueError: as :func:`open_folder`.
        CommandError: if it cannot be seen from here.
    """
    if processes.rank == 0:
        for difference in open_folder(folder, settings, versions()):
            report(f"results so far were made with other versions: {difference}", "warning")
    processes.gather(None)  # until the folder is there
    if not folder.is_dir():
        raise CommandError(f"{folder}: must be a folder that all machines share")


def finish(
    numbers: Sequence[int],
    done: Collection[int],
    chunk: int,
    journal: Path,
    processes: Processes,
    work: Work,
    name: str | None = None,
) -> list[Skipped]:
    """Does the work on all examples that are not done yet; what had to be skipped, in all processes.

    Args:
        numbers: of the examples.
        done: those that are.
        chunk: how many are finished together. Which these are does not depend on what is done.
        journal: the folder of the journals.
        processes: that share the work.
        work: a batch of it: a line for the journal, or None if there is nothing to keep, and what was skipped.
        name: of the progress bar.
    """
    batches = [
        [number for number in numbers[start : start + chunk] if number not in done]
        for start in range(0, len(numbers), chunk)
    ]
    processes.gather(None)  # until all have read what is done
    own = processes.share([batch for batch in batches if batch])
    is_shown = processes.rank == 0 and sys.stderr.isatty()
    skipped: list[Skipped] = []
    with (
        Journal(journal, processes.rank) as kept,
        tqdm(total=sum(map(len, own)), desc=name, unit="image", disable=not is_shown) as bar,
    ):
        for batch in own:
            line, left_out = work(batch)
            if line is not None:
                kept.append(line)
            for skip in left_out:
                report(f"{skip.name}: {skip.reason}")
            skipped += left_out
            bar.update(len(batch))
    return [skip for part in processes.gather(skipped) for skip in part]


@contextmanager
def as_command_errors(folder: Path) -> Iterator[None]:
    """Tells what goes wrong with the results' files, and what the model cannot do, in one line."""
    try:
        yield
    except OSError as error:
        raise CommandError(f"{folder}: cannot be written: {error}. What is finished is kept.") from error
    except (RuntimeError, TypeError, ValueError, FloatingPointError) as error:
        raise CommandError(error) from error
