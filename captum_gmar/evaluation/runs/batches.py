"""Examples in batches: read, joined into inputs of the model, and left out where they fail."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, NamedTuple, TypeAlias, TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from captum_gmar.attr.patch_relevance import FAILURES
from captum_gmar.evaluation.data.example import Example, Identity
from captum_gmar.evaluation.data.subject import Subject
from captum_gmar.evaluation.runs.journal import Record
from captum_gmar.metrics.curves import Ends

Value = TypeVar("Value")

HOPELESS = 16  # failures without a success after which a run stops


class Skipped(NamedTuple):
    """An example that is left out of everything."""

    number: int
    name: str
    reason: str


class ReadExample(NamedTuple):
    """A single example."""

    number: int
    identity: Identity
    pixels: Tensor  # (1, C, H, W)
    mask: Tensor  # (H, W), nowhere True without a known object
    target: int | None


@dataclass(frozen=True)
class Examples:
    """A batch of examples of one size, as the model takes them."""

    numbers: Sequence[int]  # in the data
    identities: Sequence[Identity]
    pixels: Tensor  # (N, C, H, W)
    targets: Tensor  # (N,)
    masks: Tensor  # (N, H, W), True on the object; nowhere without a known object
    ends: dict[str, Ends] = field(default_factory=dict)  # of curves with each removal, once known

    def split(self, batch_size: int) -> "list[Examples]":
        """Split into batches of at most so many."""
        names = "numbers", "identities", "pixels", "targets", "masks"
        slices = [slice(start, start + batch_size) for start in range(0, len(self.numbers), batch_size)]
        return [Examples(**{name: getattr(self, name)[some] for name in names}) for some in slices]

    def records(self, values: Sequence[Any]) -> list[Record]:
        """Return a record for the journal of every example's values."""
        return list(map(Record, self.identities, self.targets.tolist(), values))


Measure: TypeAlias = Callable[[Examples, int], list[Value]]
"""Measures examples, so many in a pass of the model."""


@dataclass
class Batches:
    """Batches of examples."""

    subject: Subject
    target: Callable[[Example], int | None]  # the class that is explained; None: the predicted one
    batch_size: int  # images in a pass of the model, halved when memory does not suffice
    note: Callable[[str], None]  # hears of that
    any_done: bool = False  # whether any example was ever finished; if not, the model may be to blame for failures
    failures: list[Exception] = field(default_factory=list)  # as long as nothing is finished

    def finish(self, numbers: Sequence[int], measure: Measure[Value]) -> tuple[list[Value], list[Skipped]]:
        """Measure these examples; return the values and the examples that could not be read or measured.

        ``measure`` is called for those of one size, and again for each where it fails. If examples fail one after the
        other and none was ever finished, the first error is raised.
        """
        read: list[ReadExample] = []
        skipped: list[Skipped] = []
        for number in numbers:
            try:
                read.append(self.read(number))
            except (OSError, ValueError) as error:
                skipped.append(self._skip(number, error))
        results: list[Value] = []
        for _, group in groupby(read, key=lambda example: example.pixels.shape):
            for number, failure in self._measure_all(list(group), measure, results):
                skipped.append(self._skip(number, failure))
                self.failures.append(failure)
        self.any_done = self.any_done or bool(results)
        if not self.any_done and len(self.failures) >= HOPELESS:
            raise self.failures[0]
        return results, skipped

    def read(self, number: int) -> ReadExample:
        """Read an example."""
        example = self.subject.examples[number]
        identity = example.identity()
        image = example.read()
        pixels = image if isinstance(image, Tensor) else self.subject.classifier.pixel_values(image)
        mask = self._mask(example, image, pixels)
        return ReadExample(number, identity, pixels, mask, self.target(example))

    def _mask(self, example: Example, image: Image.Image | Tensor, pixels: Tensor) -> Tensor:
        height, width = pixels.shape[2:]
        mask = example.read_mask(*((width, height) if isinstance(image, Tensor) else image.size))
        if mask is None:
            return torch.zeros(height, width, dtype=torch.bool)
        return torch.from_numpy(np.array(mask)) > 0 if isinstance(image, Tensor) else self.subject.classifier.mask(mask)

    def _join(self, read: Sequence[ReadExample]) -> Examples:
        """Join examples of one size, with their given targets or else the predicted ones."""
        device = self.subject.device
        pixels = torch.cat([example.pixels for example in read]).to(device)
        masks = torch.stack([example.mask for example in read]).to(device)
        given = [-1 if example.target is None else example.target for example in read]
        targets = torch.tensor(given, device=device)
        if -1 in given:
            with torch.no_grad():
                parts = [
                    self.subject.classifier.logits(part).argmax(-1) for part in torch.split(pixels, self.batch_size)
                ]
            targets = torch.where(targets < 0, torch.cat(parts).to(device), targets)
        numbers, identities = [example.number for example in read], [example.identity for example in read]
        return Examples(numbers, identities, pixels, targets, masks)

    def _measure_all(
        self, read: list[ReadExample], measure: Measure[Value], results: list[Value]
    ) -> list[tuple[int, Exception]]:
        """Measure examples; return those that fail."""
        try:
            results += self._fit_memory(lambda: measure(self._join(read), self.batch_size))
        except FAILURES as error:
            if isinstance(error, torch.OutOfMemoryError):
                raise
            if len(read) == 1:
                return [(read[0].number, error)]
            return [failure for example in read for failure in self._measure_all([example], measure, results)]
        return []

    def _fit_memory(self, work: Callable[[], list[Value]]) -> list[Value]:
        """Do the work with as many images in a pass as memory holds."""
        while True:
            try:
                return work()
            except torch.OutOfMemoryError:
                if self.batch_size == 1:
                    raise
                self.batch_size //= 2
                self.note(f"out of memory: going on with {self.batch_size} images at once")
            if self.subject.device.type != "cpu":
                torch.get_device_module(self.subject.device).empty_cache()

    def _skip(self, number: int, error: Exception) -> Skipped:
        example, reason = self.subject.examples[number], " ".join(str(error).split())
        for place in (example.name, *example.files):  # reports put the name before the reason
            reason = reason.removeprefix(f"{place}: ").removeprefix(f"{place} ")
        return Skipped(number, example.name, reason)


def first_pixels(subject: Subject, numbers: Sequence[int]) -> Tensor | None:
    """Return (1, C, H, W) of the first of these images that can be read; None if none can."""
    batches = Batches(subject, lambda example: 0, 1, print)
    for number in numbers:
        try:
            return batches.read(number).pixels
        except (OSError, ValueError):
            continue  # measuring it reports the error
    return None
