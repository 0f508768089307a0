"""The work of an evaluation: from the numbers of examples to all that is measured of them."""

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from captum_gmar.attr.explainer import Explainer
from captum_gmar.engine.models import patch_grid
from captum_gmar.evaluation.batches import Batches, Preparation, Read, Skipped
from captum_gmar.evaluation.controls import CONTROLS, controls
from captum_gmar.evaluation.data import Example
from captum_gmar.evaluation.journal import Batch, Result, Row
from captum_gmar.evaluation.measures import Examples, Measures, Method


@dataclass
class Work:
    """
    Args:
        examples: all of the data.
        prepare: what makes them ready for the model.
        maps: of the methods.
        measures: of the maps.
        device: of the model.
        at_once: how many images one pass of the model may hold. It is halved when memory does not suffice.
        note: told when that happens.
    """

    examples: Sequence[Example]
    prepare: Preparation
    maps: Explainer
    measures: Measures
    device: torch.device
    at_once: int
    note: Callable[[str], None]

    def __post_init__(self) -> None:
        self.batches = Batches(self.examples, self.prepare, self.device, self.at_once, self.note)

    def batch(self, numbers: Sequence[int], names: Collection[str] = ()) -> tuple[Batch, list[Skipped]]:
        """What is measured of these examples, and those that could not be.

        Args:
            numbers: of the examples.
            names: of the methods and controls, if not all are to be measured.

        Raises:
            RuntimeError: if not even the first examples can be explained.
        """
        names = names or {*self.maps.methods, *CONTROLS}
        seconds = {name: 0.0 for name in self.maps.methods if name in names}
        results, skipped = self.batches.finish(numbers, partial(self._measure, names, seconds))
        return Batch(tuple(results), seconds), skipped

    def _measure(
        self, names: Collection[str], seconds: dict[str, float], read: Sequence[Read], at_once: int
    ) -> list[Result]:
        self.maps.batch_size = at_once
        examples = self.batches.together(read, self.measures.forward_func, at_once)
        rows: list[list[Row]] = [[] for _ in read]
        for part_rows in self._rows(names, examples, seconds, at_once):
            for own, found in zip(rows, part_rows, strict=True):
                own += found
        return list(map(Result, examples.numbers, examples.targets.tolist(), map(tuple, rows)))

    def _rows(
        self, names: Collection[str], examples: Examples, seconds: dict[str, float], at_once: int
    ) -> Iterator[list[list[Row]]]:
        grid = patch_grid(self.maps.model, *examples.pixels.shape[2:])
        patch_size = grid.patch_height, grid.patch_width
        methods: dict[str, Method] = {name: partial(self._method, name) for name in self.maps.methods}
        for name, method in {**methods, **controls(patch_size)}.items():
            if name not in names:
                continue
            begin = time.perf_counter()
            parts = [method(part.numbers)(part.pixels, part.targets) for part in examples.split(at_once)]
            attributions = torch.cat(parts)
            _finish(self.device)
            if name in seconds:
                seconds[name] += time.perf_counter() - begin
            yield self.measures.of(name, method, attributions, examples, patch_size, at_once)

    def _method(self, name: str, numbers: Sequence[int]) -> Callable[..., Tensor]:
        """The same for all examples."""
        return partial(self._attribute, name)

    def _attribute(self, name: str, inputs: Tensor, target: Tensor | Sequence[int]) -> Tensor:
        targets = torch.as_tensor(target, device=inputs.device)
        relevance = self.maps.relevance(name, inputs.detach(), targets)
        return patch_grid(self.maps.model, *inputs.shape[2:]).spread_like(relevance, inputs)


def _finish(device: torch.device) -> None:
    """Waits for what the device still has to do, so that its time is counted."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
