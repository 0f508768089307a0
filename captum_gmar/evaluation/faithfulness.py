"""How faithful the maps of methods are, and where they lie, over a data set: measured, and kept."""

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from captum_gmar.attr.catalogue import STEPS
from captum_gmar.attr.patch_relevance import Method as AttributionMethod
from captum_gmar.attr.patch_relevance import images_at_once, naming, relevance_of
from captum_gmar.classifier.image_classifier import Classifier
from captum_gmar.engine.models.patch_grid import patch_grid
from captum_gmar.evaluation.catalogue import default_metrics, make_removal, metrics_of
from captum_gmar.evaluation.data.subject import Subject
from captum_gmar.evaluation.measurement.control_methods import controls
from captum_gmar.evaluation.measurement.measures import Measures
from captum_gmar.evaluation.measurement.mosaic_subjects import MosaicMaker
from captum_gmar.evaluation.measurement.rerun_metrics import NumberedMethod
from captum_gmar.evaluation.runs.batches import Batches, Examples, Skipped
from captum_gmar.evaluation.runs.example_results import Result, Row, results_from
from captum_gmar.evaluation.runs.folder import JOURNAL
from captum_gmar.evaluation.runs.journal import Batch, Record
from captum_gmar.evaluation.runs.processes import Processes
from captum_gmar.evaluation.runs.progress import Listener
from captum_gmar.evaluation.runs.resumable import Kept, extended, finish, read_kept, tell_changed, tell_skipped
from captum_gmar.evaluation.settings import EvaluationSettings
from captum_gmar.metrics.clock import wait_for
from captum_gmar.metrics.controls import CONTROLS
from captum_gmar.metrics.removal import Removal
from captum_gmar.metrics.video_layout import framewise_removal

MOSAICS = "gridpg"  # the metric that puts images together
CHUNK = 8  # examples that are finished together


def completed(settings: EvaluationSettings, subject: Subject, numbers: Sequence[int]) -> EvaluationSettings:
    """The settings with what the data and the model say of what was left open.

    Raises:
        ValueError: if the settings do not go with these.
    """
    has_objects = any(example.has_object for example in subject.examples)
    metrics = settings.metrics or default_metrics(has_objects)
    unknown = metrics_of("localisation", metrics)
    if unknown and not has_objects:
        raise ValueError(f"metrics {', '.join(unknown)} must go with data that has boxes or masks")
    if subject.sheet is not None and MOSAICS in metrics:
        raise ValueError(f"metrics {MOSAICS} must go with images. Got videos instead.")
    if len(subject.classifier.labels) == 1:
        raise ValueError("evaluate must go with a model of several classes")
    if not metrics_of("curve", metrics):
        return replace(settings, metrics=metrics, steps=None, removals=())
    if not settings.removals:
        raise ValueError("removals must be at least one name. Got none instead.")
    pixels = first_pixels(subject, numbers)
    patches = None if pixels is None else patch_grid(subject.classifier.model, *pixels.shape[2:]).patches
    return replace(settings, metrics=metrics, steps=_steps(settings.steps, patches))


def _steps(steps: int | None, patches: int | None) -> int:
    """Those that are asked for, or as many as usual and possible; patches are unknown where no image can be read."""
    if steps and patches and steps > patches:
        raise ValueError(f"steps must be at most the number of patches, {patches}. Got {steps} instead.")
    return steps or min(STEPS, patches or STEPS)


def first_pixels(subject: Subject, numbers: Sequence[int]) -> Tensor | None:
    """(1, C, H, W) of the first of these images that can be read; None if none can."""
    batches = Batches(subject.examples, subject.preparation(lambda example: 0), subject.device, 1, print)
    for number in numbers:
        try:
            return batches.read(number).pixels
        except (OSError, ValueError):
            continue  # which will be told when it is to be measured
    return None


@dataclass
class Faithfulness:
    """What is finished of an evaluation, and what is to be done yet, in one of its processes.

    Args:
        settings: complete ones.
        methods: those of the settings, by name.
        subject: the model and the data.
        numbers: of the examples that are asked for.
        folder: of the results.
        processes: that share the work.
        listener: told what happens on the way.
    """

    settings: EvaluationSettings
    methods: Mapping[str, AttributionMethod]
    subject: Subject
    numbers: Sequence[int]
    folder: Path
    processes: Processes
    listener: Listener

    def __post_init__(self) -> None:
        self.names = [*self.methods, *CONTROLS]  # in the order of the tables
        self.work = FaithfulnessWork(self.settings, self.methods, self.subject, self.listener.note)

    @property
    def removal_names(self) -> dict[str, str]:
        """From the name of each way of removal to how it is done."""
        return {name: removal.name for name, removal in self.work.measures.removals.items()}

    def finish(self) -> tuple[list[Result], dict[str, float], list[Skipped]]:
        """Measures what is not measured yet.

        Returns:
            In the first process all results, in the order of the data, and the mean seconds that each method took for
            a map; and in every process what was left out.

        Raises:
            RuntimeError: if nothing could be measured; it names the method.
        """
        kept = Kept({}, [], [])
        if self.processes.is_first:
            kept = read_kept(self.folder / JOURNAL, self.subject.examples)
            tell_changed(kept.changed, self.listener)
        missing, any_done = self.processes.first(lambda: (self._missing(kept), bool(kept.records)))
        self.work.batches.any_done = any_done
        batches, skipped = list[Batch](), dict[int, Skipped]()
        for methods, numbers in missing.items():
            rest = {*self.numbers} - {*numbers}
            work = partial(self.work.batch, methods=methods)
            done = finish(self.numbers, rest, CHUNK, self.folder / JOURNAL, self.processes, work, self.listener)
            batches += done.batches
            skipped |= {skip.number: skip for skip in done.skipped}
        kept = self._all_kept(kept, batches)
        results = self._results(kept)
        self._check_hope(bool(results), list(skipped.values()))
        return results, _mean_seconds(kept.batches, list(self.methods)), list(skipped.values())

    def _all_kept(self, kept: Kept, batches: Sequence[Batch]) -> Kept:
        """What was kept before with what this process, or all processes, have finished since."""
        if not self.processes.is_first:
            return kept
        if self.processes.total > 1:
            return read_kept(self.folder / JOURNAL, self.subject.examples)
        return extended(kept, batches, self.subject.examples)

    def _missing(self, kept: Kept) -> dict[tuple[str, ...], list[int]]:
        """The examples by the methods, and controls, that they are still to be measured for."""
        done = results_from(kept.records)
        missing: dict[tuple[str, ...], list[int]] = {}
        for number in self.numbers:
            methods = done[number].lacks(self.names) if number in done else self.names
            if methods:
                missing.setdefault(tuple(methods), []).append(number)
        return missing

    def _results(self, kept: Kept) -> list[Result]:
        """What is asked for of the examples of which all of it is finished."""
        records = {number: kept.records[number] for number in sorted(kept.records.keys() & {*self.numbers})}
        return [result.only(self.names) for result in results_from(records).values() if not result.lacks(self.names)]

    def _check_hope(self, has_results: bool, skipped: Sequence[Skipped]) -> None:
        """Tells why there is nothing, if that is so: by an error if the model is to blame, else of each image."""
        failures = self.work.batches.failures
        reasons = self.processes.gather(str(failures[0]) if failures else None)
        if self.processes.first(lambda: has_results):
            return
        for reason in filter(None, reasons):
            raise failures[0] if failures else RuntimeError(reason)
        if self.processes.is_first:
            tell_skipped(skipped, self.listener)


class FaithfulnessWork:
    """From the numbers of examples to all that is measured of them.

    Args:
        settings: complete ones.
        methods: by name.
        subject: the model and the data.
        note: told when memory does not suffice.
    """

    def __init__(
        self,
        settings: EvaluationSettings,
        methods: Mapping[str, AttributionMethod],
        subject: Subject,
        note: Callable[[str], None],
    ) -> None:
        classifier = subject.classifier
        self.methods = methods
        self.model = classifier.model
        self.device = subject.device
        self.sheet = subject.sheet
        at_once = settings.batch_size or images_at_once(self.device)
        prepare = subject.preparation(subject.targets(settings.target))
        self.batches = Batches(subject.examples, prepare, self.device, at_once, note)
        self.measures = Measures(
            metrics=settings.metrics or (),
            removals={name: self._removal(name, settings.seed) for name in settings.removals},
            logits=classifier.logits,
            changed_logits=partial(_logits, classifier, settings.precision == "bfloat16"),
            probabilities=partial(_probabilities, classifier),
            steps=settings.steps or 0,
            seed=settings.seed,
            mosaics=MosaicMaker(self.batches, classifier.logits, settings.seed).make,
        )

    def _removal(self, name: str, seed: int) -> Removal:
        removal = make_removal(name, self.model, seed)
        return removal if self.sheet is None else framewise_removal(removal, self.sheet)

    def batch(self, numbers: Sequence[int], methods: Collection[str] = ()) -> tuple[Batch, list[Skipped]]:
        """What is measured of these examples, and those that could not be.

        Args:
            numbers: of the examples.
            methods: and controls, by name, if not all are to be measured.

        Raises:
            RuntimeError: if one example after the other cannot be explained, and none could be.
        """
        names = methods or (*self.methods, *CONTROLS)
        seconds = {name: 0.0 for name in self.methods if name in names}
        records, skipped = self.batches.finish(numbers, partial(self._measure, names, seconds))
        return Batch(tuple(records), seconds), skipped

    def _measure(
        self, names: Collection[str], seconds: dict[str, float], examples: Examples, at_once: int
    ) -> list[Record]:
        height, width = examples.pixels.shape[2:]
        grid = patch_grid(self.model, height, width)
        rows, columns = grid.rows * grid.patch_height, grid.columns * grid.patch_width
        whole = partial(F.pad, pad=(0, width - columns, 0, height - rows))  # with a margin that no patch covers
        examples = replace(
            examples, pixels=examples.pixels[..., :rows, :columns], masks=examples.masks[:, :rows, :columns]
        )
        measures = self.measures.seen_by(whole)
        methods: dict[str, NumberedMethod] = {
            **{name: partial(self._relevance, name, whole, at_once) for name in self.methods},
            **controls((grid.patch_height, grid.patch_width), self.sheet),
        }
        values: list[list[Row]] = [[] for _ in examples.numbers]
        for name, method in methods.items():
            if name in names:
                maps = self._timed(name, method, examples, seconds, at_once)
                for known, more in zip(values, measures.rows(name, method, maps, examples, grid, at_once), strict=True):
                    known += more
        return examples.records(values)

    def _timed(
        self, name: str, method: NumberedMethod, examples: Examples, seconds: dict[str, float], at_once: int
    ) -> Tensor:
        begin = time.perf_counter()
        parts = [method(part.numbers, part.pixels, part.targets) for part in examples.split(at_once)]
        wait_for(self.device)
        if name in seconds:
            seconds[name] += time.perf_counter() - begin
        return torch.cat(parts)

    def _relevance(
        self,
        name: str,
        whole: Callable[[Tensor], Tensor],
        at_once: int,
        numbers: Sequence[int],
        inputs: Tensor,
        target: Tensor | Sequence[int],
    ) -> Tensor:
        """(N, rows, columns); the same for an example whatever its number."""
        targets = torch.as_tensor(target, device=inputs.device)
        pixels = whole(inputs.detach())
        pixels = pixels if self.sheet is None else self.sheet.to_videos(pixels)
        with naming(name):
            relevance = relevance_of(self.methods[name], self.model, pixels, targets, batch_size=at_once)
        return relevance.flatten(1, -2)  # of a video's moments one below the other


def _logits(classifier: Classifier, is_rounded: bool, pixels: Tensor) -> Tensor:
    """(N, classes), from a pass in bfloat16 if ``is_rounded``."""
    with torch.autocast(pixels.device.type, torch.bfloat16, enabled=is_rounded):
        return classifier.logits(pixels).float()


def _probabilities(classifier: Classifier, logits: Tensor) -> Tensor:
    """(N, classes)

    Raises:
        ValueError: if the model has one output.
    """
    shares = classifier.probabilities(logits)
    if shares is None:
        raise ValueError("evaluate must go with a model of several classes")
    return shares


def _mean_seconds(batches: Sequence[Batch], methods: Sequence[str]) -> dict[str, float]:
    """That each method took for a map."""
    means = {}
    for name in methods:
        having = [batch for batch in batches if name in batch.seconds]
        if having:  # not if there was nothing to measure when it was added
            means[name] = sum(batch.seconds[name] for batch in having) / sum(len(batch.records) for batch in having)
    return means
