"""Metrics of a method's maps, by the names of the catalogue.

All metrics of what a model returns as patches leave images or come back are read from one set of passes, see
:func:`captum_gmar.metrics.curves.follow`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor

from captum_gmar.engine.models.patch_grid import PatchGrid
from captum_gmar.evaluation.catalogue import METRICS, MetricEntry
from captum_gmar.evaluation.measurement.rerun_metrics import Case, MosaicSubjects, NumberedMethod
from captum_gmar.evaluation.runs.batches import Examples
from captum_gmar.evaluation.runs.journal import Row
from captum_gmar.metrics import MaskedProbability, PerturbationCurve, Removal, area_over_curve, masked_probability
from captum_gmar.metrics._outputs import LOGIT, predicted_classes, target_output
from captum_gmar.metrics.curves import (
    BROUGHT_BACK,
    LEAST_FIRST,
    MOST_FIRST,
    Course,
    CurveOptions,
    FollowedCurves,
    Readout,
    follow,
)
from captum_gmar.metrics.relevance_gain import changes

Output: TypeAlias = Literal["probability", "logit", "class"]
"""Output that a curve follows: of the target, or the predicted class."""


class CurveMetric(NamedTuple):
    """A metric of curves."""

    courses: tuple[Course, ...]
    output: Output
    make: Callable[..., PerturbationCurve | Tensor]  # of the curves of the courses: a curve, or values (N,)
    is_contrast: bool = False  # minus the same metric of the map for another class

    def measure(self, passes: FollowedCurves, readouts: Mapping[Output, Readout]) -> tuple[Tensor, Tensor | None]:
        """Return the values (N,), and the curves (N, steps + 1) of which these are the areas, if they are."""
        made = self.make(*(passes.curve(course, readouts[self.output]) for course in self.courses))
        return (made.auc, made.curve) if isinstance(made, PerturbationCurve) else (made, None)


def _keep_curve(curve: PerturbationCurve) -> PerturbationCurve:
    return curve


def _gain(least_first: PerturbationCurve, most_first: PerturbationCurve) -> Tensor:
    return least_first.auc - most_first.auc


INSERTION = CurveMetric((BROUGHT_BACK,), "probability", _keep_curve)
DELETION = CurveMetric((MOST_FIRST,), "probability", _keep_curve)
SRG = CurveMetric((LEAST_FIRST, MOST_FIRST), "logit", _gain)
SRG_PROBABILITY = CurveMetric((LEAST_FIRST, MOST_FIRST), "probability", _gain)
MIF = CurveMetric((MOST_FIRST,), "logit", _keep_curve)
LIF = CurveMetric((LEAST_FIRST,), "logit", _keep_curve)
MIF_ACCURACY = CurveMetric((MOST_FIRST,), "class", changes)
LIF_ACCURACY = CurveMetric((LEAST_FIRST,), "class", changes)
CLASS_GAIN = SRG._replace(is_contrast=True)
AOPC = CurveMetric((MOST_FIRST,), "probability", area_over_curve)


@dataclass(frozen=True)
class Measures:
    """Metrics and all that they need of a model."""

    metrics: Sequence[str]  # names of the catalogue
    removals: Mapping[str, Removal]  # by name
    logits: Callable[[Tensor], Tensor]  # that methods explain
    changed_logits: Callable[[Tensor], Tensor]  # of changed images; may be less precise
    probabilities: Callable[[Tensor], Tensor]  # of logits (N, classes)
    steps: int  # of curves
    seed: int  # of what metrics sample
    mosaics: Callable[[Examples], MosaicSubjects]

    @cached_property
    def readouts(self) -> dict[Output, Readout]:
        """Functions from the model's logits to the outputs that curves follow."""

        def probability(outputs: Tensor, indices: Tensor | None, examples: int) -> Tensor:
            return target_output(self.probabilities(outputs), indices, examples, softmax=False)

        return {"probability": probability, "logit": LOGIT, "class": predicted_classes}

    @cached_property
    def curve_metrics(self) -> dict[str, CurveMetric]:
        """Metrics of curves, by name."""
        return {name: METRICS[name].load() for name in self.metrics if METRICS[name].kind == "curve"}

    def with_margin(self, pad: Callable[[Tensor], Tensor]) -> "Measures":
        """Return measures that give the model padded images."""

        def run_padded(forward_func: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
            return lambda pixels: forward_func(pad(pixels))

        return replace(self, logits=run_padded(self.logits), changed_logits=run_padded(self.changed_logits))

    def rows(
        self, name: str, method: NumberedMethod, maps: Tensor, examples: Examples, grid: PatchGrid, batch_size: int
    ) -> list[list[Row]]:
        """Return the rows of each example.

        ``maps`` are relevance (N, rows, columns), or attributions in the pixels' shape, as ``method`` returns them;
        examples consist of whole patches, and one pass of the model holds ``batch_size`` images.
        """
        measured = _MeasuredMaps(self, method, maps, examples, grid, batch_size)
        rows: list[list[Row]] = [[] for _ in examples.numbers]
        for metric in map(METRICS.__getitem__, self.metrics):
            for removal in self.removals if metric.kind == "curve" else [""]:
                for row, (value, *curve) in zip(rows, measured.values(metric, removal), strict=True):
                    if value is not None:
                        row.append(Row(name, metric.name, removal, value, *curve))
        return rows


@dataclass(frozen=True)
class _MeasuredMaps:
    """A method, its maps of some examples, and what their metrics share."""

    measures: Measures
    method: NumberedMethod
    maps: Tensor
    examples: Examples
    grid: PatchGrid
    batch_size: int

    def values(self, metric: MetricEntry, removal: str) -> Iterator[tuple[Any, ...]]:
        """Yield for each example a value, or None, and of curves the curve."""
        if metric.kind == "curve":
            made, readouts = self.measures.curve_metrics[metric.name], self.measures.readouts
            values, curves = made.measure(self._followed_curves[removal], readouts)
            if made.is_contrast:
                values = values - made.measure(self._followed_for_others[removal], readouts)[0]
            points = [()] * len(values) if curves is None else map(tuple, map(_numbers, curves))
            return zip(_numbers(values), points, strict=True)
        if metric.kind == "localisation":
            return zip(self._on_objects(metric))
        if metric.kind == "masked":
            return zip(_numbers(metric.load().__get__(self._masked_probability)))
        measures, patch_size = self.measures, (self.grid.patch_height, self.grid.patch_width)
        given = self._attribute, measures.logits, self.examples, self._attributions, patch_size
        values = metric.load()(Case(*given, measures.seed, measures.mosaics))
        return zip(_numbers(values) if isinstance(values, Tensor) else values)

    @cached_property
    def _attributions(self) -> Tensor:
        """Attributions in the shape of the pixels."""
        pixels = self.examples.pixels
        return self.maps if self.maps.dim() == pixels.dim() else self.grid.spread_like(self.maps, pixels)

    def _attribute(self, numbers: Sequence[int], inputs: Tensor, target: Tensor | Sequence[int]) -> Tensor:
        """Return attributions in the shape of the pixels, for metrics that run the method again."""
        maps = self.method(numbers, inputs, target)
        return maps if maps.dim() == inputs.dim() else self.grid.spread_like(maps, inputs)

    @cached_property
    def _masked_probability(self) -> MaskedProbability:
        given = self.examples.pixels, self._attributions, self.examples.targets
        measures = self.measures

        def probabilities(pixels: Tensor) -> Tensor:
            return measures.probabilities(measures.changed_logits(pixels))

        return masked_probability(probabilities, *given, softmax=False, batch_size=self.batch_size)

    @cached_property
    def _followed_curves(self) -> dict[str, FollowedCurves]:
        """Passes of all metrics of curves, by the name of the removal."""
        return self._follow(self.maps, list(self.measures.curve_metrics.values()))

    @cached_property
    def _followed_for_others(self) -> dict[str, FollowedCurves]:
        """Passes of maps for the most probable other class, while the outputs are the target's."""
        examples, measures = self.examples, self.measures
        with torch.no_grad():
            logits = torch.cat([measures.logits(part.pixels) for part in examples.split(self.batch_size)])
        others = logits.scatter(1, examples.targets[:, None], -torch.inf).argmax(1)
        parts = replace(examples, targets=others).split(self.batch_size)
        maps = torch.cat([self.method(part.numbers, part.pixels, part.targets) for part in parts])
        return self._follow(maps, [metric for metric in measures.curve_metrics.values() if metric.is_contrast])

    def _follow(self, maps: Tensor, metrics: Sequence[CurveMetric]) -> dict[str, FollowedCurves]:
        """Run the passes; those of whole and of emptied images serve all methods."""
        measures, examples, passes = self.measures, self.examples, {}
        courses = list(dict.fromkeys(course for metric in metrics for course in metric.courses))
        patch_size = (self.grid.patch_height, self.grid.patch_width) if maps.dim() == examples.pixels.dim() else None
        for name, removal in measures.removals.items():
            options = CurveOptions(patch_size, measures.steps, removal, self.batch_size)
            given = measures.changed_logits, examples.pixels, maps, examples.targets, options
            passes[name] = follow(*given, courses, list(measures.readouts.values()), examples.ends.get(name))
            examples.ends.setdefault(name, passes[name].ends)
        return passes

    def _on_objects(self, metric: MetricEntry) -> list[float | None]:
        """Return a score for each example, None without a known object."""
        masks = self.examples.masks
        known = masks.flatten(1).any(1)
        if not known.any():
            return [None] * len(known)
        scores = metric.load()(self._attributions[known], masks[known])
        values = iter(_numbers(getattr(scores, "score", scores)))
        return [next(values) if has_object else None for has_object in known.tolist()]


def _numbers(values: Tensor) -> list[float]:
    """Return the values with the digits that single precision has, and no more."""
    return [float(f"{value:.9g}") for value in values.flatten().tolist()]
