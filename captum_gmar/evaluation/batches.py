"""Examples in batches: read, put together as the model takes them, and left out where that cannot be."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import NamedTuple, TypeAlias, TypeVar

import torch
from PIL import Image
from torch import Tensor

from captum_gmar.attr.patch_relevance import FAILURES
from captum_gmar.evaluation.data import Example
from captum_gmar.evaluation.measures import Examples

Done = TypeVar("Done")


class Preparation(NamedTuple):
    """How images become what the model takes."""

    pixels: Callable[[Image.Image], Tensor]  # (1, C, H, W)
    mask: Callable[[Image.Image], Tensor]  # of a black and white image: boolean (H, W), True on the object
    target: Callable[[Example], int | None]  # the class that is explained; None: the predicted one


class Skipped(NamedTuple):
    """An example that is left out of everything."""

    number: int
    name: str
    reason: str


class Read(NamedTuple):
    """An example that was read."""

    number: int
    pixels: Tensor  # (1, C, H, W)
    mask: Tensor  # (H, W)
    target: int | None


Measure: TypeAlias = Callable[[Sequence[Read], int], list[Done]]
"""What is to be done with examples of one size, so many in a pass of the model, and the results of it."""


@dataclass
class Batches:
    """
    Args:
        examples: all of the data.
        prepare: what makes them ready for the model.
        device: of the model.
        at_once: how many images one pass of the model may hold. It is halved when memory does not suffice.
        note: told when that happens.
        any_done: whether any example was ever finished; if not, the model is most likely to blame for what fails.
    """

    examples: Sequence[Example]
    prepare: Preparation
    device: torch.device
    at_once: int
    note: Callable[[str], None]
    any_done: bool = False

    def finish(self, numbers: Sequence[int], measure: Measure[Done]) -> tuple[list[Done], list[Skipped]]:
        """What ``measure`` makes of these examples, and those that could not be read or measured.

        Raises:
            RuntimeError: if not even the first examples can be measured; also other errors of FAILURES.
        """
        read: list[Read] = []
        skipped: list[Skipped] = []
        for number in numbers:
            try:
                read.append(self._read(number))
            except (OSError, ValueError) as error:
                skipped.append(self._skip(number, error))
        results: list[Done] = []
        failures: list[Exception] = []
        for _, group in groupby(read, key=lambda own: own.pixels.shape):
            for number, failure in self._measure_or_find(list(group), measure, results):
                skipped.append(self._skip(number, failure))
                failures.append(failure)
        self.any_done = self.any_done or bool(results)
        if failures and not self.any_done:
            raise failures[0]
        return results, skipped

    def together(self, read: Sequence[Read], forward_func: Callable[[Tensor], Tensor], at_once: int) -> Examples:
        """As the model takes them, with the targets that are given or else predicted."""
        pixels = torch.cat([own.pixels for own in read]).to(self.device)
        masks = torch.stack([own.mask for own in read]).to(self.device)
        targets = torch.tensor([-1 if own.target is None else own.target for own in read], device=self.device)
        if any(own.target is None for own in read):
            with torch.no_grad():
                predicted = torch.cat([forward_func(some).argmax(-1) for some in torch.split(pixels, at_once)])
            targets = torch.where(targets < 0, predicted, targets)
        return Examples([own.number for own in read], pixels, targets, masks)

    def _read(self, number: int) -> Read:
        example = self.examples[number]
        image = example.read()
        pixels = self.prepare.pixels(image)
        mask = example.read_mask(*image.size)
        on_object = torch.zeros(pixels.shape[2:], dtype=torch.bool) if mask is None else self.prepare.mask(mask)
        return Read(number, pixels, on_object, self.prepare.target(example))

    def _measure_or_find(
        self, read: list[Read], measure: Measure[Done], results: list[Done]
    ) -> list[tuple[int, Exception]]:
        """Where it fails on examples, these are looked for and left out."""
        try:
            results += self._fitting(partial(measure, read))
        except FAILURES as error:
            if isinstance(error, torch.OutOfMemoryError):
                raise
            if len(read) == 1:
                return [(read[0].number, error)]
            return [failure for own in read for failure in self._measure_or_find([own], measure, results)]
        return []

    def _fitting(self, work: Callable[[int], list[Done]]) -> list[Done]:
        """Does the work with as many images at once as memory holds."""
        while True:
            try:
                return work(self.at_once)
            except torch.OutOfMemoryError:
                if self.at_once == 1:
                    raise
                self.at_once //= 2
                self.note(f"out of memory: going on with {self.at_once} images at once")
            torch.cuda.empty_cache()

    def _skip(self, number: int, error: Exception) -> Skipped:
        return Skipped(number, self.examples[number].name, " ".join(str(error).split()))
