"""The work of ``captum-gmar heads``: images through a model, and what they say of its heads."""

import argparse
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from tqdm import tqdm

from captum_gmar.attr.patch_relevance import images_at_once
from captum_gmar.classifier.class_names import find_class
from captum_gmar.classifier.loading import choose_device
from captum_gmar.cli.scenes import scene_subject
from captum_gmar.cli.terminal import CommandError, report
from captum_gmar.cli.warned import own_warning
from captum_gmar.evaluation.batches import Batches, Preparation, Skipped
from captum_gmar.evaluation.data import Example, of_images, read_examples
from captum_gmar.evaluation.head_report import Silenced
from captum_gmar.evaluation.head_results import Weighed, save_arrays, save_importance, tell, write_folder
from captum_gmar.evaluation.head_scores import (
    Ablation,
    Found,
    HeadWork,
    curves_of,
    make_orders,
    make_scores,
    read_found,
)
from captum_gmar.evaluation.processes import Processes, joined, local_device
from captum_gmar.evaluation.resumable import as_command_errors, begin, finish
from captum_gmar.evaluation.subject import Subject, classifier_of, drawn
from captum_gmar.evaluation.tables import fingerprint
from captum_gmar.heads import HeadStatistics
from captum_gmar.heads.ablation_curve import tenths

CPU_BATCH = 4  # each image is run hundreds of times without some heads, and batches are kept when they are finished
FILLED = {"zero": "zero in place of their outputs", "mean": "their mean outputs instead"}


def weigh(picture: Path | None, array: Path | None, arguments: argparse.Namespace) -> tuple[int, int]:
    """Scores heads and, if asked for, silences them; how many images were scored and how many left out.

    Args:
        picture: where it goes; None if there is to be a folder of results.
        array: where the arrays go, if anywhere.
        arguments: of the command.

    Raises:
        CommandError: if the model or the data cannot be had, not even the first images can be scored, or results cannot
            be written.
    """
    device = choose_device(local_device(arguments.device))
    with (
        own_warning(),
        joined(device) as processes,
        _subject(arguments, device) as subject,
        TemporaryDirectory() as unkept,
    ):
        if picture and processes.total > 1:
            raise CommandError("several processes must go with --output RESULTS, a folder")
        folder = Path(unkept) if picture else Path(arguments.output)
        with as_command_errors(folder):
            return Weighing(arguments, subject, device, processes, folder).run(picture, array)


class Weighing:
    """A run of the command, in one of its processes."""

    def __init__(
        self,
        arguments: argparse.Namespace,
        subject: Subject,
        device: torch.device,
        processes: Processes,
        folder: Path,
    ) -> None:
        self.arguments = arguments
        self.subject = subject
        self.processes = processes
        self.folder = folder
        target, self.explained = _target(arguments.target, subject)
        self.chunk = arguments.batch_size or (CPU_BATCH if device.type == "cpu" else images_at_once(device))
        self.numbers = drawn(len(subject.examples), arguments.limit, arguments.seed)
        prepare = Preparation(subject.classifier.pixel_values, subject.classifier.mask, target)
        batches = Batches(subject.examples, prepare, device, self.chunk, partial(report, kind="note"))
        self.work = HeadWork(batches, subject.classifier)
        self.scores = make_scores(arguments.scores, subject.classifier)
        if arguments.ablate and len(subject.classifier.labels) == 1:
            raise CommandError("--ablate must go with a model of several classes")

    def run(self, picture: Path | None, array: Path | None) -> tuple[int, int]:
        """As :func:`weigh`."""
        begin(self.folder, self._settings(), self.processes)
        skipped = self._finish(self.numbers, self._journal, partial(self.work.weigh, self.scores), "scoring")
        found = list(self._found(self._journal, self.numbers)) if self.arguments.ablate or array else []
        statistics = self._statistics(self.numbers)
        silenced, tested = None, list[Found]()
        if self.arguments.ablate and statistics:
            silenced, tested, more = self._ablate({own.number: own.target for own in found})
            skipped += more
        weighed = Weighed(self.subject, self.explained, statistics, silenced)
        if statistics and self.processes.rank == 0:
            self._write(weighed, picture, skipped)
            if array:
                save_arrays(weighed, sorted(found), tested, array)
        return weighed.examples, len({skip.number for skip in skipped})

    def _write(self, weighed: Weighed, picture: Path | None, skipped: Sequence[Skipped]) -> None:
        if picture:
            save_importance(weighed, picture)
            tqdm.write(tell(weighed, picture))
        else:
            write_folder(weighed, self.folder, skipped)
            tqdm.write(f"{weighed.examples} images scored: {self.folder / 'heads.md'}")

    def _ablate(self, targets: dict[int, int]) -> tuple[Silenced, list[Found], list[Skipped]]:
        """Ranks heads by every second example that was drawn, and silences them on the others."""
        halves = self.numbers[::2], self.numbers[1::2]  # each keeps its examples when more follow
        ranking, testing = ([number for number in half if number in targets] for half in halves)
        if not ranking or not testing:
            raise CommandError("--ablate must go with two images or more")
        ablation = self._ablation(ranking)
        journal = self._journal / f"ablation-{self._fingerprint(ablation, ranking)}"
        skipped = self._finish(testing, journal, partial(self.work.silence, ablation, targets), "silencing")
        tested = sorted(self._found(journal, testing))
        told = FILLED[self.arguments.fill], self.arguments.within_layers
        return Silenced(curves_of(tested, ablation), len(ranking), *told), tested, skipped

    def _ablation(self, ranking: Sequence[int]) -> Ablation:
        arguments = self.arguments
        importance = {name: own.mean for name, own in self._statistics(ranking).items()}
        orders = make_orders(importance, arguments.random, arguments.seed)
        fill = self.work.mean_outputs(ranking) if arguments.fill == "mean" else None
        return Ablation(orders, tenths(orders[0].importance.numel()), arguments.within_layers, fill)

    def _fingerprint(self, ablation: Ablation, ranking: Sequence[int]) -> str:
        """Of all that predictions without heads depend on, beside what scores depend on."""
        orders = [(own.score, own.first, own.importance.tolist()) for own in ablation.orders]
        asked = ablation.within_layers, self.arguments.fill, ranking if self.arguments.fill == "mean" else ()
        return fingerprint([repr((orders, asked)).encode()])

    def _finish(
        self,
        numbers: Sequence[int],
        journal: Path,
        work: Callable[[Sequence[int]], tuple[list[Found], list[Skipped]]],
        name: str,
    ) -> list[Skipped]:
        def batch(some: Sequence[int]) -> tuple[tuple[Found, ...] | None, list[Skipped]]:
            found, skipped = work(some)
            return tuple(found) or None, skipped

        done = {own.number for own in self._found(journal, numbers)}
        self.work.batches.any_done = self.work.batches.any_done or bool(done)
        return finish(numbers, done, self.chunk, journal, self.processes, batch, name)

    def _statistics(self, numbers: Sequence[int]) -> dict[str, HeadStatistics]:
        """Of each score over these examples, as far as they could be scored; nothing if none could."""
        records = list(self._found(self._journal, numbers))
        if not records:
            return {}
        importance = torch.tensor([record.values for record in records])  # (N, scores, layers, heads)
        targets = [record.target for record in records]
        return {
            name: HeadStatistics.from_examples(of_score, targets)
            for name, of_score in zip(self.scores, importance.unbind(1), strict=True)
        }

    def _found(self, journal: Path, numbers: Sequence[int]) -> Iterator[Found]:
        """What is finished of these examples, each once: two runs on one folder may both have finished it."""
        records = {record.number: record for batch in read_found(journal) for record in batch}
        return (records[number] for number in sorted({*numbers} & {*records}))

    def _settings(self) -> dict[str, Any]:
        """All that scores depend on."""
        names = ("scores", "target", "seed", "size")
        return {**self.subject.fingerprints(), **{name: getattr(self.arguments, name) for name in names}}

    @property
    def _journal(self) -> Path:
        return self.folder / "journal"


@contextmanager
def _subject(arguments: argparse.Namespace, device: torch.device) -> Iterator[Subject]:
    if not arguments.data:
        with scene_subject(arguments, device, objects=1) as subject:
            yield subject
        return
    arguments.target = arguments.target or "predicted"
    try:
        examples = of_images(arguments.images) if arguments.images else read_examples(arguments.data)
    except (OSError, ValueError) as error:
        raise CommandError(error) from error
    examples = [replace(example, boxes=(), mask=None, mask_name=None) for example in examples]
    yield Subject(classifier_of(arguments.model, arguments, device), arguments.model, examples, str(arguments.data))


def _target(text: str, subject: Subject) -> tuple[Callable[[Example], int | None], str]:
    """What gives the class that is explained, and how it is told."""
    if text == "predicted":
        return lambda example: None, "the predicted class"
    if text == "label":
        return subject.labels_as_targets(), "the class of the label"
    labels = subject.classifier.labels
    chosen = find_class(text, labels, forms="predicted, label, an index or a label")
    return lambda example: chosen, f"{labels[chosen]} (class {chosen})"
