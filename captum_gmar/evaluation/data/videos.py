"""Videos, each laid out on a sheet, which is measured as an image is."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from PIL import Image
from torch import Tensor, nn

from captum_gmar.engine.models.patch_grid import frame_count, tube_frames
from captum_gmar.evaluation.data.example import Example
from captum_gmar.evaluation.data.subject import GivenClassifier
from captum_gmar.metrics.video_layout import VIDEO_DIMS, Sheet


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
            f"height, width). Got {type(image).__name__} instead."
        )

    def logits(self, pixels: Tensor) -> Tensor:
        """Return logits (N, classes) of sheets."""
        return super().logits(self.sheet.to_videos(pixels))


def takes_videos(model: nn.Module) -> bool:
    """Return whether the config of a model says that it takes videos."""
    return bool(frame_count(model))


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
            f"model's config says. Got {tuple(pixels.shape[1:])} instead."
        )
    return sheet.to_sheets(pixels)


def _mask_on_sheet(example: Example, sheet: Sheet) -> Tensor:
    read: Callable[[], object] = example.mask or (lambda: None)
    mask = read()
    if not isinstance(mask, Tensor) or mask.dim() != 3 or len(mask) != sheet.frames:
        shape = tuple(mask.shape) if isinstance(mask, Tensor) else type(mask).__name__
        raise ValueError(
            f"a video's mask must be of shape ({sheet.frames} frames, height, width). Got {shape} instead."
        )
    return sheet.to_sheets(mask[None, :, None].bool()).any(1)[0]
