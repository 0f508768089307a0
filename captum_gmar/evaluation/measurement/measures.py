"""What is measured of a method's maps, by the names of the catalogue."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor

from captum_gmar.engine.models.patch_grid import PatchGrid
from captum_gmar.evaluation.catalogue import METRICS, MetricEntry
from captum_gmar.evaluation.measurement.curve_metrics import CurveMetric, Readings, courses_of, readings
from captum_gmar.evaluation.measurement.mosaic_subjects import MosaicSubjects
from captum_gmar.evaluation.measurement.rerun_metrics import Case, NumberedMethod
from captum_gmar.evaluation.runs.batches import Examples
from captum_gmar.evaluation.runs.journal import Row
from captum_gmar.metrics import MaskedProbability, Removal, masked_probability
from captum_gmar.metrics.curves import Course, CurveOptions, FollowedCurves, follow


@dataclass(frozen=True)
class Measures:
    """
    Args:
        metrics: names of the catalogue.
        removals: ways to remove patches, by name.
        logits: of the model, for what a method explains.
        changed_logits: of the model, for images that were changed; may be less precise.
        probabilities: of logits (N, classes).
        steps: of curves.
        seed: of what metrics draw.
        mosaics: what makes mosaics of examples.
    """

    metrics: Sequence[str]
    removals: Mapping[str, Removal]
    logits: Callable[[Tensor], Tensor]
    changed_logits: Callable[[Tensor], Tensor]
    probabilities: Callable[[Tensor], Tensor]
    steps: int
    seed: int
    mosaics: Callable[[Examples], MosaicSubjects]

    @cached_property
    def readings(self) -> Readings:
        """What curves follow."""
        return readings(self.probabilities)

    @cached_property
    def curve_metrics(self) -> dict[str, CurveMetric]:
        """Those of the metrics that are made of curves, by name."""
        return {name: METRICS[name].load() for name in self.metrics if METRICS[name].kind == "curve"}

    def seen_by(self, whole: Callable[[Tensor], Tensor]) -> "Measures":
        """The same for a model that is to be given more of an image than is measured: what ``whole`` makes of it."""

        def seen(forward_func: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
            return lambda pixels: forward_func(whole(pixels))

        return replace(self, logits=seen(self.logits), changed_logits=seen(self.changed_logits))

    def rows(
        self, name: str, method: NumberedMethod, maps: Tensor, examples: Examples, grid: PatchGrid, batch_size: int
    ) -> list[list[Row]]:
        """The rows of each example.

        Args:
            name: of the method.
            method: what is measured; it gives relevance or attributions, as in ``maps``.
            maps: what it gave for the examples: relevance (N, rows, columns), or attributions in the pixels' shape.
            examples: N of them, of whole patches.
            grid: of their patches.
            batch_size: how many images one pass of the model may hold.
        """
        question = _Question(self, method, maps, examples, grid, batch_size)
        rows: list[list[Row]] = [[] for _ in examples.numbers]
        for metric in map(METRICS.__getitem__, self.metrics):
            for removal in self.removals if metric.kind == "curve" else [""]:
                for row, (value, *curve) in zip(rows, question.values(metric, removal), strict=True):
                    if value is not None:
                        row.append(Row(name, metric.name, removal, value, *curve))
        return rows


@dataclass(frozen=True)
class _Question:
    """A method and its maps of some examples, and what is to be measured of them."""

    measures: Measures
    method: NumberedMethod
    maps: Tensor
    examples: Examples
    grid: PatchGrid
    batch_size: int

    def values(self, metric: MetricEntry, removal: str) -> Iterator[tuple[Any, ...]]:
        """For each example a value, or None, and of curves the curve."""
        if metric.kind == "curve":
            made = self.measures.curve_metrics[metric.name]
            values, curves = made.measure(self._followed[removal], self.measures.readings)
            if made.is_contrast:
                values = values - made.measure(self._followed_for_others[removal], self.measures.readings)[0]
            points = [()] * len(values) if curves is None else map(tuple, map(_numbers, curves))
            return zip(_numbers(values), points, strict=True)
        if metric.kind == "localisation":
            return zip(self._on_objects(metric))
        if metric.kind == "masked":
            return zip(_numbers(metric.load().__get__(self._masked)))
        values = metric.load()(self._case)
        return zip(_numbers(values) if isinstance(values, Tensor) else values)

    @cached_property
    def _attributions(self) -> Tensor:
        """In the shape of the pixels."""
        pixels = self.examples.pixels
        return self.maps if self.maps.dim() == pixels.dim() else self.grid.spread_like(self.maps, pixels)

    def _attribute(self, numbers: Sequence[int], inputs: Tensor, target: Tensor | Sequence[int]) -> Tensor:
        """In the shape of the pixels, as metrics that run the method again call it."""
        maps = self.method(numbers, inputs, target)
        return maps if maps.dim() == inputs.dim() else self.grid.spread_like(maps, inputs)

    @cached_property
    def _masked(self) -> MaskedProbability:
        given = self.examples.pixels, self._attributions, self.examples.targets
        measures = self.measures

        def probabilities(pixels: Tensor) -> Tensor:
            return measures.probabilities(measures.changed_logits(pixels))

        return masked_probability(probabilities, *given, softmax=False, batch_size=self.batch_size)

    @property
    def _case(self) -> Case:
        measures, examples = self.measures, self.examples
        return Case(
            self._attribute,
            measures.logits,
            examples.numbers,
            examples.pixels,
            examples.targets,
            self._attributions,
            (self.grid.patch_height, self.grid.patch_width),
            measures.seed,
            partial(measures.mosaics, examples),
        )

    @cached_property
    def _followed(self) -> dict[str, FollowedCurves]:
        """By the name of the removal, what all metrics that are made of curves are read from."""
        courses = courses_of(list(self.measures.curve_metrics.values()))
        return {name: self._follow(name, self.maps, courses) for name in self.measures.removals}

    @cached_property
    def _followed_for_others(self) -> dict[str, FollowedCurves]:
        """The same of maps for another class each, the most probable one, while the target is followed as before."""
        examples, measures = self.examples, self.measures
        with torch.no_grad():
            logits = torch.cat([measures.logits(part.pixels) for part in examples.split(self.batch_size)])
        others = logits.scatter(1, examples.targets[:, None], -torch.inf).argmax(1)
        parts = replace(examples, targets=others).split(self.batch_size)
        maps = torch.cat([self.method(part.numbers, part.pixels, part.targets) for part in parts])
        courses = courses_of([metric for metric in measures.curve_metrics.values() if metric.is_contrast])
        return {name: self._follow(name, maps, courses) for name in measures.removals}

    def _follow(self, removal: str, maps: Tensor, courses: Sequence[Course]) -> FollowedCurves:
        """What comes of the whole images, and of nothing of them, serves all methods."""
        measures, examples = self.measures, self.examples
        patch_size = (self.grid.patch_height, self.grid.patch_width) if maps.dim() == examples.pixels.dim() else None
        options = CurveOptions(patch_size, measures.steps, measures.removals[removal], self.batch_size)
        given = measures.changed_logits, examples.pixels, maps, examples.targets, options
        followed = follow(*given, courses, list(measures.readings.values()), examples.ends.get(removal))
        examples.ends.setdefault(removal, followed.ends)
        return followed

    def _on_objects(self, metric: MetricEntry) -> list[float | None]:
        """None for examples of which it is not known where the object is."""
        masks = self.examples.masks
        known = masks.flatten(1).any(1)
        if not known.any():
            return [None] * len(known)
        scores = metric.load()(self._attributions[known], masks[known])
        values = iter(_numbers(getattr(scores, "score", scores)))
        return [next(values) if has_object else None for has_object in known.tolist()]


def _numbers(values: Tensor) -> list[float]:
    """With the digits that single precision has, and no more."""
    return [float(f"{value:.9g}") for value in values.flatten().tolist()]
