"""What is measured of a method's maps, by the names that the command line and tables use."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import torch
from captum.metrics import infidelity, sensitivity_max
from torch import Tensor

from captum_gmar.evaluation.journal import Row
from captum_gmar.metrics import (
    MaskedProbability,
    PerturbationCurve,
    Removal,
    class_sensitivity,
    deletion,
    insertion,
    masked_probability,
    pointing_game,
    relevance_mass_accuracy,
    relevance_rank_accuracy,
)

CURVES = {"insertion": insertion, "deletion": deletion}
MASKED: dict[str, Callable[[Any], Tensor]] = {
    "average-drop": lambda found: found.drop,
    "average-increase": lambda found: found.increase,
    "average-gain": lambda found: found.gain,
}
LOCALISATION: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "pointing-game": lambda attributions, masks: pointing_game(attributions, masks).score,
    "relevance-mass": relevance_mass_accuracy,
    "relevance-rank": relevance_rank_accuracy,
}
ANEW = ("class-sensitivity", "sensitivity-max", "infidelity")  # which run the method again

Method: TypeAlias = Callable[[Sequence[int]], Callable[..., Tensor]]
"""What takes pixels and ``target=`` and gives attributions, for examples of these numbers in the data."""

_NOISE = 0.02  # how far sensitivity-max moves pixels, and the deviation of infidelity's noise


@dataclass(frozen=True)
class Examples:
    """A batch of examples as the model takes them."""

    numbers: Sequence[int]  # in the data
    pixels: Tensor  # (N, C, H, W)
    targets: Tensor  # (N,)
    masks: Tensor | None  # (N, H, W), True on the object; none True where that is not known
    ends: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)  # of curves with each removal, once known

    def split(self, at_once: int) -> "list[Examples]":
        def parts(values: Any) -> list[Any]:
            return [values[start : start + at_once] for start in range(0, len(self.numbers), at_once)]

        masks = [None] * len(parts(self.numbers)) if self.masks is None else parts(self.masks)
        return list(map(Examples, parts(self.numbers), parts(self.pixels), parts(self.targets), masks))


@dataclass(frozen=True)
class Measures:
    """
    Args:
        metrics: names from this module's tables.
        removals: ways to remove patches, by name.
        forward_func: the model's logits, for what a method explains.
        perturbed_func: the model's probabilities, for images that were changed; may be less precise.
        steps: of insertion and deletion.
        seed: of what metrics draw.
    """

    metrics: Sequence[str]
    removals: dict[str, Removal]
    forward_func: Callable[[Tensor], Tensor]
    perturbed_func: Callable[[Tensor], Tensor]
    steps: int
    seed: int

    def of(
        self,
        name: str,
        method: Method,
        attributions: Tensor,
        examples: Examples,
        patch_size: tuple[int, int],
        at_once: int,
    ) -> list[list[Row]]:
        """The rows of each example.

        Args:
            name: of the method.
            method: what is measured.
            attributions: what it gave for the examples, in the shape of the pixels.
            examples: N of them.
            patch_size: height and width of a patch.
            at_once: how many images one pass of the model may hold.
        """
        rows: list[list[Row]] = [[] for _ in examples.numbers]
        question = _Question(method, attributions, examples, patch_size, at_once)
        if {*MASKED} & {*self.metrics}:
            question = question._replace(masked=self._masked(question))
        for metric in self.metrics:
            for removal in self.removals if metric in CURVES else [""]:
                found = self._found(metric, removal, question)
                for own, (value, *curve) in zip(rows, found, strict=True):
                    if value is not None:
                        own.append(Row(name, metric, removal, value, *curve))
        return rows

    def _found(self, metric: str, removal: str, asked: "_Question") -> Iterator[tuple[Any, ...]]:
        """For each example a value, or None, and of curves the curve."""
        if metric in CURVES:
            curves = self._curves(metric, removal, asked)
            return zip(_numbers(curves.auc), map(tuple, map(_numbers, curves.curve)), strict=True)
        if metric in LOCALISATION:
            return zip(_on_objects(LOCALISATION[metric], asked.attributions, asked.examples.masks))
        if metric in MASKED:
            return zip(_numbers(MASKED[metric](asked.masked)))
        if metric == "class-sensitivity":
            options = {"patch_size": asked.patch_size}
            attribute = asked.method(asked.examples.numbers)
            return zip(_numbers(class_sensitivity(attribute, self.forward_func, asked.examples.pixels, **options)))
        singles = zip(asked.examples.split(1), torch.split(asked.attributions, 1), strict=True)
        return zip([self._drawn(metric, asked.method, *single) for single in singles])

    def _curves(self, metric: str, removal: str, asked: "_Question") -> PerturbationCurve:
        """What is found of the whole images, and of nothing of them, serves all methods."""
        options: dict[str, Any] = {
            "patch_size": asked.patch_size,
            "steps": self.steps,
            "batch_size": asked.at_once,
            "softmax": False,
        }
        options |= {"removal": self.removals[removal], "ends": asked.examples.ends.get(removal)}
        found = CURVES[metric](self.perturbed_func, *asked.inputs, **options)
        first, last = found.curve[:, 0], found.curve[:, -1]
        asked.examples.ends[removal] = (first, last) if metric == "deletion" else (last, first)
        return found

    def _masked(self, asked: "_Question") -> MaskedProbability:
        return masked_probability(self.perturbed_func, *asked.inputs, softmax=False, batch_size=asked.at_once)

    def _drawn(self, metric: str, method: Method, example: Examples, attributions: Tensor) -> float:
        """Of one example, so that what is drawn does not depend on its batch."""
        with torch.random.fork_rng():
            torch.manual_seed(self.seed + example.numbers[0])
            if metric == "sensitivity-max":
                of_tuple = partial(_of_tuple, method(example.numbers))
                value = sensitivity_max(of_tuple, example.pixels, perturb_radius=_NOISE, target=example.targets)
            else:
                inputs = self.forward_func, _shaken, example.pixels, attributions
                value = infidelity(*inputs, target=example.targets, normalize=True)
        return _numbers(value)[0]


class _Question(NamedTuple):
    """The method and its maps that are measured."""

    method: Method
    attributions: Tensor
    examples: Examples
    patch_size: tuple[int, int]
    at_once: int
    masked: MaskedProbability | None = None  # where a metric is made of it

    @property
    def inputs(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.examples.pixels, self.attributions, self.examples.targets


def _on_objects(
    measure: Callable[[Tensor, Tensor], Tensor], attributions: Tensor, masks: Tensor | None
) -> list[float | None]:
    """None for examples of which it is not known where the object is."""
    if masks is None:
        return [None] * len(attributions)
    known = masks.flatten(1).any(1)
    values = iter(_numbers(measure(attributions[known], masks[known])) if known.any() else ())
    return [next(values) if has_object else None for has_object in known.tolist()]


def _numbers(values: Tensor) -> list[float]:
    """With the digits that single precision has, and no more."""
    return [float(f"{value:.9g}") for value in values.flatten().tolist()]


def _of_tuple(attribute: Callable[..., Tensor], inputs: tuple[Tensor], target: Tensor) -> tuple[Tensor]:
    """Calls the method as Captum's metrics call it."""
    return (attribute(inputs[0], target=target),)


def _shaken(pixels: Tensor) -> tuple[Tensor, Tensor]:
    noise = _NOISE * torch.randn_like(pixels)
    return noise, pixels - noise
