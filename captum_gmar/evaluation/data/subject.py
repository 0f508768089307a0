"""A model and the examples that it is measured on."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from captum_gmar import __version__
from captum_gmar.classifier import Classifier
from captum_gmar.classifier.class_names import find_classes
from captum_gmar.engine.models.patch_grid import Logits, config_of, frame_count, tube_frames
from captum_gmar.evaluation.data.example import Example, fingerprint
from captum_gmar.metrics.video_layout import VIDEO_DIMS, Sheet

TARGETS = ("predicted", "label")

_NOT_READ = ("_name_or_path", "transformers_version", "_commit_hash", "dtype", "torch_dtype")  # of a configuration


@dataclass(frozen=True)
class Subject:
    """A model and data."""

    classifier: Classifier
    examples: Sequence[Example]
    model_name: str  # in reports
    data_name: str  # in reports

    @property
    def sheet(self) -> Sheet | None:
        """Layout of examples that are videos."""
        return getattr(self.classifier, "sheet", None)

    def as_run(self, pixels: Tensor) -> Tensor:
        """Return pixels of examples as the model takes them: of videos, off their sheets."""
        return pixels if self.sheet is None else self.sheet.to_videos(pixels)

    @property
    def device(self) -> torch.device:
        """Device of the model."""
        return next((parameter.device for parameter in self.classifier.model.parameters()), torch.device("cpu"))

    def targets(self, target: str) -> Callable[[Example], int | None]:
        """Return a function from an example to the class that is explained: None for the predicted one."""
        if target == "predicted":
            return lambda example: None
        examples = [example for example in self.examples if not example.is_broken]
        labels = [example.label for example in examples if example.label is not None]
        if len(labels) < len(examples):
            raise ValueError("target 'label' requires labels of all images, but some have none. Pass 'predicted'.")
        known: dict[Any, int] = find_classes(labels, self.classifier.labels, "the data's label")
        return lambda example: known[example.label]

    def fingerprints(self) -> dict[str, str | int | None]:
        """Return digests of the model and its preprocessing, for the settings of a results folder."""
        model, processor = self.classifier.model, self.classifier.processor
        processing = processor.to_dict() if hasattr(processor, "to_dict") else repr(processor)
        return {
            "weights": fingerprint(_weights(model)),
            "size": self.classifier.size,
            "preprocessing": fingerprint([json.dumps(processing, sort_keys=True, default=str).encode()]),
        }


@dataclass(frozen=True)
class GivenClassifier(Classifier):
    """A model from Python: any module, with or without an image processor, run as ``forward_func`` does."""

    forward_func: Callable[[Tensor], Tensor] | None = None

    @property
    def labels(self) -> dict[int, str]:
        """Names of the classes; none where the model does not name them."""
        return super().labels if hasattr(self.model, "config") else _Numbers()

    @property
    def is_multi_label(self) -> bool:
        """Whether classes do not exclude one another."""
        return hasattr(self.model, "config") and super().is_multi_label

    def pixel_values(self, image: Image.Image) -> Tensor:
        """Return pixel values (1, channels, height, width)."""
        if self.processor is None:
            raise TypeError("data must hold pixel values (channels, height, width), but got images. Pass processor=.")
        return super().pixel_values(image)

    def logits(self, pixels: Tensor) -> Tensor:
        """Return logits (N, classes)."""
        return super().logits(pixels) if self.forward_func is None else Logits(self.forward_func)(pixels)


class _Numbers(dict[int, str]):
    """Classes of a model without names."""

    def __contains__(self, index: object) -> bool:
        return isinstance(index, int) and index >= 0


def sample_numbers(examples: int, limit: int | None, seed: int, part: tuple[int, int] = (1, 1)) -> list[int]:
    """Return at most ``limit`` numbers in a random order, so that any beginning of them is a sample of all."""
    order: list[int] = torch.randperm(examples, generator=torch.Generator().manual_seed(seed)).tolist()
    first, step = part
    return [number for number in order if number % step == first - 1][:limit]


def versions() -> dict[str, str]:
    """Return the versions of this package and of those that its numbers depend on."""
    others = ("torch", "captum", "transformers", "pillow")
    return {"captum_gmar": __version__, **{name: version(name) for name in others}}


def _weights(model: nn.Module) -> Iterator[bytes]:
    config: Any = config_of(model)
    settings = config.to_dict() if hasattr(config, "to_dict") else {}
    read = {name: value for name, value in settings.items() if name not in _NOT_READ}
    yield json.dumps([type(model).__name__, read], sort_keys=True, default=str).encode()
    for tensor in model.state_dict().values():
        yield tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes()


@dataclass(frozen=True)
class VideoClassifier(GivenClassifier):
    """A model of videos, as it is run on their sheets."""

    @property
    def sheet(self) -> Sheet:
        """Layout of its videos."""
        return Sheet.from_frames(frame_count(self.model) or 0, tube_frames(self.model))

    def pixel_values(self, image: Image.Image) -> Tensor:
        """Raise an error, as images are no videos."""
        raise TypeError(
            f"data of a model of videos must hold pixel values, tensors ({frame_count(self.model)} frames, channels, "
            f"height, width), but got {type(image).__name__}."
        )

    def logits(self, pixels: Tensor) -> Tensor:
        """Return logits (N, classes) of sheets."""
        return super().logits(self.sheet.to_videos(pixels))


def lay_on_sheet(example: Example, sheet: Sheet) -> Example:
    """Lay a video and its mask out as images; a tube is on the object where one of its frames is."""
    mask = None if example.mask is None else partial(_mask_on_sheet, example, sheet)
    return replace(example, read=partial(_read_on_sheet, example, sheet), mask=mask)


def _read_on_sheet(example: Example, sheet: Sheet) -> Image.Image | Tensor:
    pixels = example.read()
    if not isinstance(pixels, Tensor):
        return pixels  # the classifier refuses an image
    if pixels.dim() != VIDEO_DIMS or pixels.shape[1] != sheet.frames:
        raise ValueError(
            f"pixel values of a video must be of shape ({sheet.frames} frames, channels, height, width), as the "
            f"model's config says, but got {tuple(pixels.shape[1:])}."
        )
    return sheet.to_sheets(pixels)


def _mask_on_sheet(example: Example, sheet: Sheet) -> Tensor:
    read: Callable[[], object] = example.mask or (lambda: None)
    mask = read()
    if not isinstance(mask, Tensor) or mask.dim() != 3 or len(mask) != sheet.frames:
        shape = tuple(mask.shape) if isinstance(mask, Tensor) else type(mask).__name__
        raise ValueError(f"a video's mask must be of shape ({sheet.frames} frames, height, width), but got {shape}.")
    return sheet.to_sheets(mask[None, :, None].bool()).any(1)[0]
