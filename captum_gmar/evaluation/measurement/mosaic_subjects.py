"""Mosaics of an example and three others of the data, for the grid pointing game."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from captum_gmar.evaluation.runs.batches import Batches, Examples
from captum_gmar.metrics.grid_pointing import CELLS, mosaic

_TRIED = 24  # others, until three of other classes are there


class MosaicSubjects(NamedTuple):
    """Mosaics of a batch of examples."""

    indices: Sequence[int]  # in the batch, of the examples that have a mosaic
    pixels: Tensor  # (M, C, H, W)
    cells: Sequence[int]  # that hold these examples


@dataclass
class MosaicMaker:
    """Maker of mosaics."""

    batches: Batches  # of the data
    logits: Callable[[Tensor], Tensor]  # of the model
    seed: int  # of the other images, and of the example's cell
    _last: tuple[Examples, MosaicSubjects] | None = field(default=None, init=False)

    def make(self, examples: Examples) -> MosaicSubjects:
        """Make mosaics, once for all methods; none where few tries find too few images of other classes."""
        if self._last is None or self._last[0] is not examples:
            self._last = examples, self._make(examples)
        return self._last[1]

    def _make(self, examples: Examples) -> MosaicSubjects:
        height, width = examples.pixels.shape[2:]
        indices, mosaics, cells = [], [], []
        for index, (number, target) in enumerate(zip(examples.numbers, examples.targets.tolist(), strict=True)):
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + number)
            others = self._others(number, target, generator)
            if len(others) == CELLS - 1:
                cell = int(torch.randint(CELLS, (), generator=generator))
                images = [*others[:cell], examples.pixels[index], *others[cell:]]
                mosaics.append(mosaic(images, height, width))
                indices.append(index)
                cells.append(cell)
        return MosaicSubjects(indices, torch.cat(mosaics) if mosaics else examples.pixels[:0], cells)

    def _others(self, number: int, target: int, generator: torch.Generator) -> list[Tensor]:
        """Return images (C, H, W) of three other classes, or as many as there are."""
        order = torch.randperm(len(self.batches.examples), generator=generator).tolist()
        classes, images = {target}, list[Tensor]()
        for image, label in self._read_finite([other for other in order if other != number][:_TRIED]):
            if label not in classes:
                classes.add(label)
                images.append(image)
            if len(images) == CELLS - 1:
                break
        return images

    def _read_finite(self, numbers: Sequence[int]) -> Iterator[tuple[Tensor, int]]:
        """Yield finite images, and their classes that are explained; measuring them reports the others."""
        for number in numbers:
            try:
                read = self.batches.read(number)
            except (OSError, ValueError):
                continue
            pixels = read.pixels.to(self.batches.device)
            if not torch.isfinite(pixels).all():
                continue
            if read.target is None:
                with torch.no_grad():
                    yield pixels[0], int(self.logits(pixels).argmax())
            else:
                yield pixels[0], read.target
