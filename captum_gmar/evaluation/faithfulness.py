"""The work of ``captum-gmar evaluate``: a data set through a model, and the files of its results."""

import argparse
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from captum_gmar.attr.explainer import Explainer
from captum_gmar.attr.patch_relevance import images_at_once
from captum_gmar.classifier.image_classifier import Classifier
from captum_gmar.classifier.loading import choose_device
from captum_gmar.cli.evaluate import CURVES, LOCALISATION, MASKED
from captum_gmar.cli.removals import make_removal
from captum_gmar.cli.scenes import scene_subject
from captum_gmar.cli.terminal import CommandError, report
from captum_gmar.cli.warned import own_warning
from captum_gmar.evaluation.batches import Preparation, Skipped
from captum_gmar.evaluation.controls import CONTROLS
from captum_gmar.evaluation.data import Example, read_examples, with_objects
from captum_gmar.evaluation.journal import Batch, Result, measured, read_batches
from captum_gmar.evaluation.measures import Measures
from captum_gmar.evaluation.measuring import Work
from captum_gmar.evaluation.plots import write_plots
from captum_gmar.evaluation.processes import Processes, joined, local_device
from captum_gmar.evaluation.report import Run, to_markdown
from captum_gmar.evaluation.resumable import as_command_errors, begin, finish
from captum_gmar.evaluation.statistics import curves, in_order, summarise, tables
from captum_gmar.evaluation.subject import Subject, classifier_of, drawn, versions
from captum_gmar.evaluation.tables import (
    write_curves,
    write_differences,
    write_examples,
    write_skipped,
    write_summary,
    write_text,
)

CHUNK = 8  # examples that are finished together


def evaluate(arguments: argparse.Namespace) -> tuple[int, int]:
    """Measures, and writes the results; how many images were measured and how many left out.

    Raises:
        CommandError: if the model or the data cannot be had, not even the first images can be explained, or results
            cannot be written.
    """
    device = choose_device(local_device(arguments.device))
    with own_warning(), joined(device) as processes, _subject(arguments, device) as subject:
        evaluation = Evaluation(arguments, subject, device, processes)
        with as_command_errors(arguments.output):
            return evaluation.run()


class Evaluation:
    """A run of the command, in one of its processes."""

    def __init__(
        self, arguments: argparse.Namespace, subject: Subject, device: torch.device, processes: Processes
    ) -> None:
        self.arguments = arguments
        self.subject = subject
        self.processes = processes
        self.folder: Path = arguments.output
        self.metrics = arguments.metrics or _default_metrics(subject.examples)
        _check_objects(self.metrics, subject.examples)
        model = subject.classifier.model
        removals = arguments.removal if set(CURVES) & set(self.metrics) else ()
        self.removals = {name: make_removal(name, model, seed=arguments.seed) for name in removals}
        self.names = [*arguments.methods, *CONTROLS]  # in the order of the tables
        self.numbers = drawn(len(subject.examples), arguments.limit, arguments.seed, arguments.part)
        self.work = self._work(device)

    def run(self) -> tuple[int, int]:
        begin(self.folder, self._settings(), self.processes)
        done = measured(read_batches(self._journal))
        self.work.batches.any_done = bool(done)
        skipped: dict[int, Skipped] = {}
        for methods, numbers in self._missing(done).items():
            rest = {*self.numbers} - {*numbers}
            work = partial(self._batch, methods)
            left_out = finish(self.numbers, rest, CHUNK, self._journal, self.processes, work)
            skipped |= {skip.number: skip for skip in left_out}
        batches = read_batches(self._journal)
        results = self._results(batches)
        if self.processes.rank == 0 and results:
            self._write(results, _mean_seconds(batches, self.arguments.methods), list(skipped.values()))
        return len(results), len(skipped)

    def _missing(self, done: Mapping[int, Result]) -> dict[tuple[str, ...], list[int]]:
        """The examples by the methods, and controls, that they are still to be measured for."""
        missing: dict[tuple[str, ...], list[int]] = {}
        for number in self.numbers:
            methods = done[number].lacks(self.names) if number in done else self.names
            if methods:
                missing.setdefault(tuple(methods), []).append(number)
        return missing

    def _batch(self, methods: Sequence[str], numbers: Sequence[int]) -> tuple[Batch | None, list[Skipped]]:
        batch, skipped = self.work.batch(numbers, methods)
        return batch if batch.results else None, skipped

    def _work(self, device: torch.device) -> Work:
        arguments, classifier = self.arguments, self.subject.classifier
        at_once = arguments.batch_size or images_at_once(device)
        logits = classifier.logits
        measures = Measures(
            metrics=self.metrics,
            removals=self.removals,
            forward_func=logits,
            perturbed_func=partial(probabilities, classifier, arguments.precision == "bfloat16"),
            steps=arguments.steps,
            seed=arguments.seed,
        )
        maps = Explainer(arguments.methods, classifier.model, logits, tokens=[], batch_size=at_once)
        prepare = Preparation(classifier.pixel_values, classifier.mask, self._target())
        return Work(self.subject.examples, prepare, maps, measures, device, at_once, partial(report, kind="note"))

    def _target(self) -> Callable[[Example], int | None]:
        return self.subject.labels_as_targets() if self.arguments.target == "label" else lambda example: None

    def _settings(self) -> dict[str, Any]:
        """All that the numbers depend on, but for the methods: more of them can follow."""
        names = ("metrics", "removal", "target", "steps", "seed", "size", "precision")
        asked = {name: getattr(self.arguments, name) for name in names}
        return {**self.subject.fingerprints(), **asked, "metrics": self.metrics}

    @property
    def _journal(self) -> Path:
        return self.folder / "journal"

    def _results(self, batches: Sequence[Batch]) -> list[Result]:
        """What is asked for of the examples of which all of it is finished, in the order of the data."""
        found = measured(batches)
        own = [found[number] for number in sorted(found.keys() & {*self.numbers})]
        return [result.of(self.names) for result in own if not result.lacks(self.names)]

    def _write(self, results: Sequence[Result], seconds: dict[str, float], skipped: Sequence[Skipped]) -> None:
        values, found = tables(results), curves(results)
        summaries = [summarise(quantity, own, self.arguments.seed) for quantity, own in values.items()]
        if not summaries:
            return report("nothing to sum up: boxes or masks are known of none of these images", "warning")
        summaries = in_order(summaries, self.metrics, list(self.removals))
        names = {name: removal.name for name, removal in self.removals.items()}
        write_examples(self.folder / "examples.csv", results, self.subject.examples)
        write_summary(self.folder / "summary.csv", summaries)
        write_differences(self.folder / "differences.csv", summaries)
        if self.removals:
            write_curves(self.folder / "curves.csv", found)
        write_skipped(self.folder / "skipped.csv", skipped)
        write_plots(self.folder / "plots", values, found, summaries, names)
        told = self._told(len(results), names, seconds, skipped)
        write_text(self.folder / "summary.md", to_markdown(summaries, told))
        tqdm.write(f"{len(results)} images measured: {self.folder / 'summary.md'}")

    def _told(
        self, measured: int, removals: dict[str, str], seconds: dict[str, float], skipped: Sequence[Skipped]
    ) -> Run:
        arguments = self.arguments
        return Run(
            model=self.subject.model_name,
            data=self.subject.data_name,
            examples=measured,
            target=f"the {arguments.target} class",
            steps=arguments.steps,
            precision=arguments.precision,
            removals=removals,
            command=shlex.join(["captum-gmar", *sys.argv[1:]]),
            versions=versions(),
            seconds=seconds,
            skipped=skipped,
        )


@contextmanager
def _subject(arguments: argparse.Namespace, device: torch.device) -> Iterator[Subject]:
    if not arguments.data:
        if arguments.boxes or arguments.masks:
            raise CommandError("--boxes and --masks must go with DATA")
        with scene_subject(arguments, device, objects=2) as subject:
            yield subject
        return
    arguments.target = arguments.target or "predicted"
    try:
        examples = read_examples(arguments.data)
        for table in filter(None, (arguments.masks, arguments.boxes)):
            examples = with_objects(examples, table)
    except (OSError, ValueError) as error:
        raise CommandError(error) from error
    classifier = classifier_of(arguments.model, arguments, device)
    yield Subject(classifier, arguments.model, examples, str(arguments.data))


def _mean_seconds(batches: Sequence[Batch], methods: Sequence[str]) -> dict[str, float]:
    """That each method took for a map."""
    found = {}
    for name in methods:
        own = [batch for batch in batches if name in batch.seconds]
        if own:  # not if there was nothing to measure when it was added
            found[name] = sum(batch.seconds[name] for batch in own) / sum(len(batch.results) for batch in own)
    return found


def _default_metrics(examples: Sequence[Example]) -> tuple[str, ...]:
    return CURVES + MASKED + (LOCALISATION if any(example.has_object for example in examples) else ())


def _check_objects(metrics: Sequence[str], examples: Sequence[Example]) -> None:
    wanted = [metric for metric in metrics if metric in LOCALISATION]
    if wanted and not any(example.has_object for example in examples):
        raise CommandError(f"--metrics {','.join(wanted)} must go with boxes or masks. Pass --boxes or --masks.")


def probabilities(classifier: Classifier, is_rounded: bool, pixels: Tensor) -> Tensor:
    """(N, classes), from a pass in bfloat16 if ``is_rounded``."""
    with torch.autocast(pixels.device.type, torch.bfloat16, enabled=is_rounded):
        logits = classifier.logits(pixels)
    found = classifier.probabilities(logits.float())
    if found is None:
        raise CommandError("evaluate must go with a model of several classes")
    return found
