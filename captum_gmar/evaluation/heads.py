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
from captum_gmar.classifier import choose_device, find_class, load_classifier
from captum_gmar.cli.listening import listener_of
from captum_gmar.cli.scenes import scene_subject
from captum_gmar.cli.terminal import CommandError, report
from captum_gmar.evaluation.batches import Batches, Skipped
from captum_gmar.evaluation.data import image_examples, read_examples
from captum_gmar.evaluation.example import Example, fingerprint
from captum_gmar.evaluation.head_report import Silenced
from captum_gmar.evaluation.head_results import Weighed, save_arrays, save_importance, tell, write_folder
from captum_gmar.evaluation.head_scores import (
    Ablation,
    Found,
    HeadWork,
    curves_of,
    make_orders,
    make_scores,
)
from captum_gmar.evaluation.journal import Batch
from captum_gmar.evaluation.processes import Processes, joined, local_device
from captum_gmar.evaluation.resumable import begun, finish, read_kept
from captum_gmar.evaluation.subject import Subject, drawn, versions
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
        joined(device) as processes,
        _subject(arguments, device) as subject,
        TemporaryDirectory() as unkept,
    ):
        if picture and processes.total > 1:
            raise CommandError("several processes must go with --output RESULTS, a folder")
        folder = Path(unkept) if picture else Path(arguments.output)
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
        batches = Batches(
            subject.examples, subject.preparation(target), device, self.chunk, partial(report, kind="note")
        )
        self.work = HeadWork(batches, subject.classifier)
        self.scores = make_scores(arguments.scores, subject.classifier)
        if arguments.ablate and len(subject.classifier.labels) == 1:
            raise CommandError("--ablate must go with a model of several classes")

    def run(self, picture: Path | None, array: Path | None) -> tuple[int, int]:
        """As :func:`weigh`."""
        with begun(self.folder, self._settings(), versions(), self.processes, listener_of("the same command")):
            return self._run(picture, array)

    def _run(self, picture: Path | None, array: Path | None) -> tuple[int, int]:
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
        work: Callable[[Sequence[int]], tuple[list[Any], list[Skipped]]],
        name: str,
    ) -> list[Skipped]:
        def batch(some: Sequence[int]) -> tuple[Batch, list[Skipped]]:
            records, skipped = work(some)
            return Batch(tuple(records), {}), skipped

        done = {own.number for own in self._found(journal, numbers)}
        self.work.batches.any_done = self.work.batches.any_done or bool(done)
        listener = listener_of("the same command", self.processes.is_first)
        finished = finish(numbers, done, self.chunk, journal, self.processes, batch, listener, name)
        if not self.work.batches.any_done and self.work.batches.failures:
            raise self.work.batches.failures[0]
        return finished.skipped

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
        """What is finished of these examples, each once."""
        kept = read_kept(journal, self.subject.examples).records
        known = sorted({*numbers} & {*kept})
        return (Found(number, kept[number][0].target, kept[number][0].values) for number in known)

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
        arguments.target, arguments.limit = arguments.target or "label", arguments.limit or 100
        with scene_subject(1, arguments.size, device) as subject:
            yield subject
        return
    arguments.target = arguments.target or "predicted"
    examples = image_examples(arguments.images) if arguments.images else read_examples(arguments.data)
    examples = [replace(example, boxes=(), mask=None, files=example.files[:1]) for example in examples]
    classifier = load_classifier(arguments.model, size=arguments.size, device=device)
    yield Subject(classifier, examples, arguments.model, str(arguments.data))


def _target(text: str, subject: Subject) -> tuple[Callable[[Example], int | None], str]:
    """What gives the class that is explained, and how it is told."""
    if text == "predicted":
        return lambda example: None, "the predicted class"
    if text == "label":
        return subject.targets("label"), "the class of the label"
    labels = subject.classifier.labels
    chosen = find_class(text, labels, forms="predicted, label, an index or a label")
    return lambda example: chosen, f"{labels[chosen]} (class {chosen})"
