"""Metrics that run the method again: on other classes, or on images that are changed a little."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import torch
from captum.metrics import infidelity, sensitivity_max
from torch import Tensor

from captum_gmar.evaluation.measurement.mosaic_subjects import MosaicSubjects
from captum_gmar.metrics import class_sensitivity, completeness_error, grid_pointing_game

NumberedMethod: TypeAlias = Callable[[Sequence[int], Tensor, Tensor | Sequence[int]], Tensor]
"""Of numbers of examples, their pixels (or several variants of each) and targets: attributions in the pixels' shape."""

_NOISE = 0.02  # how far sensitivity-max moves pixels, and the deviation of infidelity's noise


@dataclass(frozen=True)
class Case:
    """A method and examples, on which it is to be run again.

    Args:
        method: what is measured.
        logits: of the model.
        numbers: of the examples in the data.
        pixels: (N, C, H, W).
        targets: (N,) the classes that are explained.
        attributions: of the method for these, in the shape of the pixels.
        patch_size: height and width.
        seed: of what is drawn.
        mosaics: what makes mosaics of the examples, as far as that can be.
    """

    method: NumberedMethod
    logits: Callable[[Tensor], Tensor]
    numbers: Sequence[int]
    pixels: Tensor
    targets: Tensor
    attributions: Tensor
    patch_size: tuple[int, int]
    seed: int
    mosaics: Callable[[], MosaicSubjects]

    def attribute(self, inputs: Tensor, target: Tensor | Sequence[int]) -> Tensor:
        """The method as metrics call it."""
        return self.method(self.numbers, inputs, target)

    def singles(self) -> "list[Case]":
        """Of one example each."""
        tensors = (torch.split(tensor, 1) for tensor in (self.pixels, self.targets, self.attributions))
        columns = zip(self.numbers, *tensors, strict=True)
        return [
            replace(self, numbers=[number], pixels=pixels, targets=targets, attributions=attributions)
            for number, pixels, targets, attributions in columns
        ]


def class_differences(case: Case) -> Tensor:
    """How much the maps for the two most probable classes differ, see :func:`captum_gmar.metrics.class_sensitivity`."""
    return class_sensitivity(case.attribute, case.logits, case.pixels, patch_size=case.patch_size)


def grid_pointing(case: Case) -> list[float | None]:
    """Where the positive relevance lies in a mosaic of four classes, see :func:`captum_gmar.metrics.grid_pointing`.

    None for examples of which there is no mosaic.
    """
    indices, pixels, cells = case.mosaics()
    values: list[float | None] = [None] * len(case.numbers)
    if indices:
        maps = case.method([case.numbers[index] for index in indices], pixels, case.targets[list(indices)])
        for index, share in zip(indices, grid_pointing_game(maps, cells).tolist(), strict=True):
            values[index] = share
    return values


def completeness_errors(case: Case) -> Tensor:
    """How far the sum of a map is from the target's logit, see :func:`captum_gmar.metrics.completeness_error`."""
    with torch.no_grad():
        logits = case.logits(case.pixels).gather(1, case.targets[:, None])
    return completeness_error(case.attributions, logits[:, 0])


def sensitivities(case: Case) -> Tensor:
    """How much maps change with their images at most, see ``captum.metrics.sensitivity_max``."""
    return torch.cat([_drawn(single, _sensitivity) for single in case.singles()])


def infidelities(case: Case) -> Tensor:
    """How far maps are from saying what noise does to the logit, see ``captum.metrics.infidelity``; normalised."""
    return torch.cat([_drawn(single, _infidelity) for single in case.singles()])


def _drawn(single: Case, measure: Callable[[Case], Tensor]) -> Tensor:
    """What is drawn is the example's own, so that nothing depends on its batch."""
    with torch.random.fork_rng():
        torch.manual_seed(single.seed + single.numbers[0])
        return measure(single)


def _sensitivity(single: Case) -> Tensor:
    def attribute(inputs: tuple[Tensor], target: Tensor) -> tuple[Tensor]:  # as Captum's metrics call it
        return (single.attribute(inputs[0], target),)

    value: Tensor = sensitivity_max(attribute, single.pixels, perturb_radius=_NOISE, target=single.targets)
    return value


def _infidelity(single: Case) -> Tensor:
    given = single.logits, _shaken, single.pixels, single.attributions
    value: Tensor = infidelity(*given, target=single.targets, normalize=True)
    return value


def _shaken(pixels: Tensor) -> tuple[Tensor, Tensor]:
    noise = _NOISE * torch.randn_like(pixels)
    return noise, pixels - noise
