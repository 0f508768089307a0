"""Metrics that run the method again, on other classes or on changed images; and the control maps as methods."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple, TypeAlias

import torch
from captum.metrics import infidelity, sensitivity_max
from torch import Tensor

from captum_gmar.evaluation.runs.batches import Batches, Examples
from captum_gmar.metrics import class_sensitivity, completeness_error, grid_pointing_game
from captum_gmar.metrics.controls import CONTROLS, centre_blob, random_map, uniform_map
from captum_gmar.metrics.grid_pointing import CELLS, mosaic
from captum_gmar.metrics.video_layout import Sheet

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
        order = torch.randperm(len(self.batches.subject.examples), generator=generator).tolist()
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
            pixels = read.pixels.to(self.batches.subject.device)
            if not torch.isfinite(pixels).all():
                continue
            if read.target is None:
                with torch.no_grad():
                    yield pixels[0], int(self.logits(pixels).argmax())
            else:
                yield pixels[0], read.target


NumberedMethod: TypeAlias = Callable[[Sequence[int], Tensor, Tensor | Sequence[int]], Tensor]
"""Function of the numbers, pixels (or several variants of each) and targets of examples that returns their maps."""

_NOISE = 0.02  # how far sensitivity-max moves pixels, and the deviation of infidelity's noise
_OTHER_SEED = 1_000_003  # between the random maps of one class and those of the next


@dataclass(frozen=True)
class Case:
    """A method and examples, on which metrics run it again."""

    method: NumberedMethod  # returns attributions in the shape of the pixels
    logits: Callable[[Tensor], Tensor]  # of the model
    examples: Examples
    attributions: Tensor  # of the method for these, in the shape of the pixels
    patch_size: tuple[int, int]  # height and width
    seed: int  # of what is sampled
    mosaics: Callable[[Examples], MosaicSubjects]

    def attribute(self, inputs: Tensor, target: Tensor | Sequence[int]) -> Tensor:
        """Run the method as metrics call it."""
        return self.method(self.examples.numbers, inputs, target)

    def sample_each(self, measure: Callable[["Case"], Tensor]) -> Tensor:
        """Measure each example alone, with its own random numbers, so that nothing depends on its batch."""
        values = []
        for examples, attributions in zip(self.examples.split(1), torch.split(self.attributions, 1), strict=True):
            with torch.random.fork_rng():
                torch.manual_seed(self.seed + examples.numbers[0])
                values.append(measure(replace(self, examples=examples, attributions=attributions)))
        return torch.cat(values)


def class_differences(case: Case) -> Tensor:
    """Compute :func:`captum_gmar.metrics.class_sensitivity`, between the two most probable classes."""
    return class_sensitivity(case.attribute, case.logits, case.examples.pixels, patch_size=case.patch_size)


def grid_pointing(case: Case) -> list[float | None]:
    """Compute :func:`captum_gmar.metrics.grid_pointing_game`; None for examples without a mosaic."""
    indices, pixels, cells = case.mosaics(case.examples)
    values: list[float | None] = [None] * len(case.examples.numbers)
    if indices:
        numbers = [case.examples.numbers[index] for index in indices]
        maps = case.method(numbers, pixels, case.examples.targets[list(indices)])
        for index, share in zip(indices, grid_pointing_game(maps, cells).tolist(), strict=True):
            values[index] = share
    return values


def completeness_errors(case: Case) -> Tensor:
    """Compute :func:`captum_gmar.metrics.completeness_error` of the target's logit."""
    with torch.no_grad():
        logits = case.logits(case.examples.pixels).gather(1, case.examples.targets[:, None])
    return completeness_error(case.attributions, logits[:, 0])


def sensitivities(case: Case) -> Tensor:
    """Compute ``captum.metrics.sensitivity_max``."""

    def measure(single: Case) -> Tensor:
        def attribute(inputs: tuple[Tensor], target: Tensor) -> tuple[Tensor]:  # as Captum's metrics call it
            return (single.attribute(inputs[0], target),)

        given = attribute, single.examples.pixels
        value: Tensor = sensitivity_max(*given, perturb_radius=_NOISE, target=single.examples.targets)
        return value

    return case.sample_each(measure)


def infidelities(case: Case) -> Tensor:
    """Compute ``captum.metrics.infidelity``, normalised, with noise."""

    def perturb(pixels: Tensor) -> tuple[Tensor, Tensor]:
        noise = _NOISE * torch.randn_like(pixels)
        return noise, pixels - noise

    def measure(single: Case) -> Tensor:
        given = single.logits, perturb, single.examples.pixels, single.attributions
        value: Tensor = infidelity(*given, target=single.examples.targets, normalize=True)
        return value

    return case.sample_each(measure)


def control_methods(patch_size: tuple[int, int], sheet: Sheet | None = None) -> dict[str, NumberedMethod]:
    """Return the control maps, of a random value for each patch or a blob in each frame, as methods by name."""

    def random(numbers: Sequence[int], inputs: Tensor, target: Tensor | Sequence[int]) -> Tensor:
        copies = len(inputs) // len(numbers)  # of each example, in metrics that change it
        targets = torch.as_tensor(target).expand(len(inputs)).tolist()
        seeds = [numbers[i // copies] + _OTHER_SEED * chosen for i, chosen in enumerate(targets)]
        maps = [random_map(image[None], seed, patch_size) for image, seed in zip(inputs, seeds, strict=True)]
        return torch.cat(maps)

    def blob(numbers: Sequence[int], inputs: Tensor, target: Tensor | Sequence[int]) -> Tensor:
        if sheet is None:
            return centre_blob(inputs)
        videos = sheet.to_videos(inputs)
        return sheet.to_sheets(centre_blob(videos.flatten(0, 1)).view(videos.shape) / sheet.frames)

    methods: tuple[NumberedMethod, ...] = (random, lambda numbers, inputs, target: uniform_map(inputs), blob)
    return dict(zip(CONTROLS, methods, strict=True))
