"""Faithfulness and place of the maps of methods, measured over a data set."""

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from captum_gmar.attr.patch_relevance import Method as AttributionMethod
from captum_gmar.attr.patch_relevance import images_at_once, name_errors, relevance_of
from captum_gmar.classifier.image_classifier import Classifier
from captum_gmar.engine.models.patch_grid import patch_grid
from captum_gmar.evaluation.catalogue import make_removal
from captum_gmar.evaluation.data.subject import Subject
from captum_gmar.evaluation.measurement.measures import Measures
from captum_gmar.evaluation.measurement.rerun_metrics import MosaicMaker, NumberedMethod, control_methods
from captum_gmar.evaluation.runs.batches import Batches, Examples
from captum_gmar.evaluation.runs.journal import Record, Row
from captum_gmar.evaluation.settings import EvaluationSettings, one_class_error
from captum_gmar.metrics.clock import wait_for
from captum_gmar.metrics.removal import Removal
from captum_gmar.metrics.video_layout import FramewiseRemoval


class Faithfulness:
    """Measurements of methods by complete settings; ``note`` hears of memory that does not suffice."""

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
        batch_size = settings.batch_size or images_at_once(self.device)
        self.batches = Batches(subject, subject.targets(settings.target), batch_size, note)
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
        return removal if self.sheet is None else FramewiseRemoval(removal, self.sheet)

    def measure(
        self, names: Collection[str], seconds: dict[str, float], examples: Examples, batch_size: int
    ) -> list[Record]:
        """Return the rows of each example, by these methods and controls; add to the seconds of each method."""
        height, width = examples.pixels.shape[2:]
        grid = patch_grid(self.model, height, width)
        rows, columns = grid.rows * grid.patch_height, grid.columns * grid.patch_width
        whole = partial(F.pad, pad=(0, width - columns, 0, height - rows))  # with a margin that no patch covers
        examples = replace(
            examples, pixels=examples.pixels[..., :rows, :columns], masks=examples.masks[:, :rows, :columns]
        )
        measures = self.measures.with_margin(whole)
        methods: dict[str, NumberedMethod] = {
            **{name: partial(self._relevance, name, whole, batch_size) for name in self.methods},
            **control_methods((grid.patch_height, grid.patch_width), self.sheet),
        }
        values: list[list[Row]] = [[] for _ in examples.numbers]
        for name, method in methods.items():
            if name in names:
                maps = self._timed(name, method, examples, seconds, batch_size)
                for known, more in zip(
                    values, measures.rows(name, method, maps, examples, grid, batch_size), strict=True
                ):
                    known += more
        return examples.records(values)

    def _timed(
        self, name: str, method: NumberedMethod, examples: Examples, seconds: dict[str, float], batch_size: int
    ) -> Tensor:
        begin = time.perf_counter()
        parts = [method(part.numbers, part.pixels, part.targets) for part in examples.split(batch_size)]
        wait_for(self.device)
        if name in self.methods:
            seconds[name] = seconds.get(name, 0.0) + time.perf_counter() - begin
        return torch.cat(parts)

    def _relevance(
        self,
        name: str,
        whole: Callable[[Tensor], Tensor],
        batch_size: int,
        numbers: Sequence[int],
        inputs: Tensor,
        target: Tensor | Sequence[int],
    ) -> Tensor:
        """Return (N, rows, columns); the same for an example whatever its number."""
        targets = torch.as_tensor(target, device=inputs.device)
        pixels = whole(inputs.detach())
        pixels = pixels if self.sheet is None else self.sheet.to_videos(pixels)
        with name_errors(name):
            relevance = relevance_of(self.methods[name], self.model, pixels, targets, batch_size=batch_size)
        return relevance.flatten(1, -2)  # of a video's moments one below the other


def _logits(classifier: Classifier, is_rounded: bool, pixels: Tensor) -> Tensor:
    """Return (N, classes), from a pass in bfloat16 if ``is_rounded``."""
    with torch.autocast(pixels.device.type, torch.bfloat16, enabled=is_rounded):
        return classifier.logits(pixels).float()


def _probabilities(classifier: Classifier, logits: Tensor) -> Tensor:
    """Return (N, classes)."""
    probabilities = classifier.probabilities(logits)
    if probabilities is None:
        raise one_class_error()
    return probabilities
