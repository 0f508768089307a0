"""A run over a data set that scores heads and silences them: what is kept, what is left to do, and its report."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from captum_gmar.ablation import HeadStatistics
from captum_gmar.ablation.importance import HeadScore
from captum_gmar.attr.patch_relevance import images_at_once
from captum_gmar.classifier import find_class
from captum_gmar.evaluation.data.example import Example
from captum_gmar.evaluation.data.subject import Subject, drawn, versions
from captum_gmar.evaluation.heads.head_results import AblationResult, HeadResults, title_of
from captum_gmar.evaluation.heads.head_scores import Ablation, make_scores, score_heads
from captum_gmar.evaluation.heads.head_settings import HeadSettings
from captum_gmar.evaluation.reports.report_text import provenance
from captum_gmar.evaluation.reports.tables import Records, write_records, write_skipped
from captum_gmar.evaluation.runs.batches import Batches, Measure, Skipped
from captum_gmar.evaluation.runs.folder import JOURNAL, replacing_report
from captum_gmar.evaluation.runs.journal import Batch, Record
from captum_gmar.evaluation.runs.processes import Processes
from captum_gmar.evaluation.runs.progress import Listener, count
from captum_gmar.evaluation.runs.resumable import begun, extended, finish, read_kept, reasons, tell_changed
from captum_gmar.files.writing import save_picture, write_text

CPU_BATCH = 4  # each image is run hundreds of times without some heads, and batches are kept when they are finished
HEAD_REPORT = ("heads.md", "heads.csv", "heads.png", "ablation.csv", "ablation.png", "skipped.csv")


class HeadRun:
    """One run over a data set, in one of its processes; the arguments are those of :func:`run_heads`."""

    def __init__(
        self,
        settings: HeadSettings,
        subject: Subject,
        folder: Path,
        processes: Processes,
        listener: Listener,
        command: str,
        scores: Mapping[str, HeadScore] | None = None,
    ) -> None:
        if settings.ablate and len(subject.classifier.labels) == 1:
            raise ValueError("ablate must go with a model of several classes")
        self.settings = settings
        # What is known of objects does not matter, and must neither fail nor tell one example from another.
        examples = [replace(example, boxes=(), mask=None, files=example.files[:1]) for example in subject.examples]
        self.subject = subject = replace(subject, examples=examples)
        self.folder = folder
        self.processes = processes
        self.listener = listener
        self.command = command
        self.scores, self.units = make_scores(scores or settings.scores, subject.classifier)
        target, self.explained = _explained_class(settings.target, subject)
        device = subject.device
        self.chunk = settings.batch_size or (CPU_BATCH if device.type == "cpu" else images_at_once(device))
        self.numbers = drawn(len(subject.examples), settings.limit, settings.seed)
        self.batches = Batches(subject.examples, subject.preparation(target), device, self.chunk, listener.note)

    def finish(self, writes_report: bool) -> HeadResults:
        """Does what is not done yet, and sums all of it up. No process leaves before the report is written.

        Raises:
            OSError, ValueError: if the folder cannot be written to, or holds other things.
            RuntimeError: if not even the first images can be scored.
        """
        with begun(self.folder, self._settings(), versions(), self.processes, self.listener):
            records, skipped = self._records(self.numbers, self.folder / JOURNAL, partial(score_heads, self.scores))
            if not records:
                raise ValueError(f"data must hold images that can be scored. Got none: {reasons(skipped)}")
            ablation = None
            if self.settings.ablate:
                ablation, more = self._ablate(records)
                skipped += more
            results = self._results(records, ablation, skipped)
            if writes_report:
                self.processes.first(partial(self._write, results))
        return results

    def _ablate(self, records: Mapping[int, Record]) -> tuple[AblationResult, list[Skipped]]:
        """Ranks heads by every second example that was drawn, and silences them on the others."""
        halves = self.numbers[::2], self.numbers[1::2]  # each keeps its examples when more follow
        ranking, testing = ([number for number in half if number in records] for half in halves)
        if not ranking or not testing:
            raise ValueError("ablate must go with two images or more")
        statistics = self._statistics([records[number] for number in ranking])
        importance = {name: of_score.mean for name, of_score in statistics.items()}
        ablation = Ablation.by_scores(importance, self.settings.random_orders, self.settings.seed)
        journal = self.folder / JOURNAL / f"ablation-{ablation.fingerprint()}"
        measure = partial(ablation.measure, self.subject.classifier)
        tested, skipped = self._records(testing, journal, measure, lambda number: records[number].target)
        if not tested:
            raise ValueError(f"ablate must go with images that run without heads. Got none: {reasons(skipped)}")
        curves = ablation.curves([record.values for record in tested.values()])
        title = f"{title_of(self.subject.model_name, self.subject.data_name)}: heads silenced"
        return AblationResult(curves, len(ranking), _image_names(tested), title), skipped

    def _records(
        self,
        numbers: Sequence[int],
        journal: Path,
        measure: Measure[Record],
        targets: Callable[[int], int] | None = None,
    ) -> tuple[dict[int, Record], list[Skipped]]:
        """What is known of each of these examples once the work is finished, in the order of the data.

        Args:
            numbers: of the examples.
            journal: where it is kept.
            measure: what finds it out.
            targets: of the number of an example, if not the target that was asked for.
        """

        def work(some: Sequence[int]) -> tuple[Batch, list[Skipped]]:
            records, skipped = self.batches.finish(some, measure, targets)
            return Batch(tuple(records), {}), skipped

        examples = self.subject.examples
        kept = self.processes.first(lambda: read_kept(journal, examples))
        if self.processes.is_first and not targets:
            tell_changed(kept.changed, self.listener)
        self.batches.any_done = self.batches.any_done or bool(kept.records)
        name = "silencing heads" if targets else "scoring heads"
        finished = finish(numbers, kept.records, self.chunk, journal, self.processes, work, self.listener, name)
        batches = [batch for share in self.processes.gather(finished.batches) for batch in share]
        records = extended(kept, batches, examples).records
        if not records:
            self._raise_failure()
        return {number: records[number][-1] for number in sorted({*numbers} & {*records})}, finished.skipped

    def _raise_failure(self) -> None:
        """Where nothing could be done: the model is to blame, if it was tried."""
        failures = self.batches.failures
        texts = [text for text in self.processes.gather(str(failures[0]) if failures else None) if text is not None]
        if texts:
            raise failures[0] if failures else RuntimeError(texts[0])

    def _statistics(self, records: Sequence[Record]) -> dict[str, HeadStatistics]:
        """Of each score."""
        importance = torch.tensor([record.values for record in records])  # (N, scores, layers, heads)
        targets = [record.target for record in records]
        return {
            name: HeadStatistics.from_examples(of_score, targets)
            for name, of_score in zip(self.scores, importance.unbind(1), strict=True)
        }

    def _results(
        self, records: Mapping[int, Record], ablation: AblationResult | None, skipped: Sequence[Skipped]
    ) -> HeadResults:
        return HeadResults(
            model=self.subject.model_name,
            data=self.subject.data_name,
            explained=self.explained,
            statistics=self._statistics(list(records.values())),
            units=self.units,
            images=_image_names(records),
            ablation=ablation,
            skipped=tuple({skip.number: skip for skip in skipped}.values()),
            provenance=tuple(self._provenance(len(records))),
        )

    def _provenance(self, images: int) -> list[str]:
        data = f"{self.subject.data_name}, {count(images)}"
        return provenance(self.subject.model_name, data, self.explained, self.command, versions())

    def _settings(self) -> dict[str, Any]:
        """All that scores depend on."""
        return {
            **self.subject.fingerprints(),
            "scores": list(self.scores),
            "target": self.settings.target,
            "seed": self.settings.seed,
        }

    def _write(self, results: HeadResults) -> None:
        with replacing_report(self.folder, HEAD_REPORT) as folder:
            write_records(folder / "heads.csv", _without_nan(results.records()))
            save_picture(results.visualize(use_pyplot=False)[0], folder / "heads.png")
            if results.ablation:
                write_records(folder / "ablation.csv", _without_nan(results.ablation.records()))
                save_picture(results.ablation.visualize(use_pyplot=False)[0], folder / "ablation.png")
            write_skipped(folder / "skipped.csv", results.skipped)
            write_text(folder / "heads.md", results.to_markdown())


def _explained_class(target: str | int, subject: Subject) -> tuple[Callable[[Example], int | None], str]:
    """What gives the class that is explained, and how it is told."""
    if target in ("predicted", "label"):
        words = {"predicted": "the predicted class", "label": "the class of the label"}
        return subject.targets(str(target)), words[str(target)]
    labels = subject.classifier.labels
    chosen = find_class(target, labels, forms="predicted, label, an index or a label")
    return lambda example: chosen, f"{labels[chosen]} (class {chosen})" if len(labels) else f"class {chosen}"


def _image_names(records: Mapping[int, Record]) -> tuple[str, ...]:
    return tuple(record.example.name for record in records.values())


def _without_nan(records: Records) -> Records:
    """Empty cells where there is no number."""
    return [{name: None if value != value else value for name, value in row.items()} for row in records]
