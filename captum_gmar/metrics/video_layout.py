"""Layout of videos as images, so that curves of images also measure videos.

A *tube* is one patch position in consecutive frames. A *sheet* is an image whose channels hold a tube's frames and
whose rows hold the *moments*, one below the other.

Letters in shapes: N examples, S sets of patches, F frames, C channels.
"""

from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from captum_gmar.metrics._inputs import PatchSize, is_integer
from captum_gmar.metrics._outputs import ForwardFunc
from captum_gmar.metrics.removal import PixelRemoval, Removal, check_removed

VIDEO_DIMS, RELEVANCE_DIMS = 5, 4
TUBE_DIMS = 3  # numbers in a patch size


class Sheet(NamedTuple):
    """Layout of videos (N, F, C, height, width) as sheets (N, tube·C, moments·height, width)."""

    moments: int
    tube: int  # frames of a moment

    @classmethod
    def from_frames(cls, frames: int, tube: int) -> "Sheet":
        """Return the layout for a number of frames; raise a ValueError unless the tube's frames divide it."""
        if frames % tube:
            raise ValueError(f"videos must be of whole tubes of {tube} frames, but got {frames} frames.")
        return cls(frames // tube, tube)

    @property
    def frames(self) -> int:
        """Number of frames F of a video."""
        return self.moments * self.tube

    def split_moments(self, maps: Tensor) -> Tensor:
        """Reshape maps (N, moments·rows, columns) to (N, moments, rows, columns)."""
        return maps.view(len(maps), self.moments, -1, maps.shape[-1])

    def to_sheets(self, videos: Tensor) -> Tensor:
        """Convert videos to sheets."""
        examples, _, channels, height, width = videos.shape
        tubes = videos.reshape(examples, self.moments, self.tube, channels, height, width)
        return tubes.movedim(1, 3).reshape(examples, self.tube * channels, self.moments * height, width)

    def to_videos(self, sheets: Tensor) -> Tensor:
        """Convert sheets to videos."""
        examples, channels, _, width = sheets.shape
        frames = sheets.reshape(examples, self.tube, channels // self.tube, self.moments, -1, width)
        return frames.movedim(3, 1).flatten(1, 2)

    def wrap(self, forward_func: ForwardFunc) -> ForwardFunc:
        """Return a function of sheets from a function of videos."""
        return lambda sheets: forward_func(self.to_videos(sheets))


@dataclass(frozen=True)
class FramewiseRemoval:
    """Removal of a sheet's patches that treats each frame as an image.

    Raises:
        TypeError: unless the image removal replaces pixels, since tokens of videos cannot be removed.
    """

    removal: Removal
    sheet: Sheet

    def __post_init__(self) -> None:
        if not isinstance(self.removal, PixelRemoval):
            raise TypeError(
                f"removal must replace pixels of videos, such as Zero() and Blur(), but got {self.removal.name}."
            )

    @property
    def name(self) -> str:
        """Name of the image removal."""
        return self.removal.name

    def __call__(self, forward_func: ForwardFunc, inputs: Tensor, removed: Tensor) -> Tensor:
        """Return outputs (N·S, ...) for sheets (N, ...) without removed patches (N, S, rows, columns)."""
        assert isinstance(self.removal, PixelRemoval)
        check_removed(removed, inputs)
        examples, sets, _, columns = removed.shape
        moments = removed.view(examples, sets, self.sheet.moments, -1, columns).movedim(2, 1)
        removed = moments.repeat_interleave(self.sheet.tube, 1).flatten(0, 1)
        frames = self.removal.perturb(self.sheet.to_videos(inputs).flatten(0, 1), removed)
        videos = frames.view(examples, -1, *frames.shape[1:]).movedim(2, 1).flatten(0, 1)
        return forward_func(self.sheet.to_sheets(videos))


def lay_out_videos(videos: Tensor, maps: Tensor, patch_size: PatchSize) -> tuple[Tensor, Tensor, PatchSize, Sheet]:
    """Convert videos (N, F, C, H, W) and their maps to sheets (N, tube·C, moments·H, W); return patch size and layout.

    Maps are relevance of tubes (N, moments, rows, columns), or attributions in the videos' shape, with ``patch_size``
    as frames, height and width of a tube; without frames, a tube has one.
    """
    if not isinstance(maps, Tensor):
        raise TypeError(f"attributions must be a tensor in the shape of the videos, but got {type(maps).__name__}.")
    frames, is_relevance = videos.shape[1], maps.dim() == RELEVANCE_DIMS
    tube, patch = 1, patch_size
    if isinstance(patch_size, tuple) and len(patch_size) == TUBE_DIMS:
        tube, patch = patch_size[0], patch_size[-2:]
    moments = maps.shape[1] if is_relevance else frames // tube if is_integer(tube) and tube > 0 else 0
    fits = maps.shape == videos.shape and moments * tube == frames
    if is_relevance and maps.numel():
        fits = not any(size % cells for size, cells in zip(videos.shape[-2:], maps.shape[-2:], strict=True))
    if not fits or not moments or frames % moments:
        raise ValueError(
            "attributions must be (examples, moments, rows, columns) of whole tubes, or in the videos' shape with a "
            f"patch size (frames, height, width) that divides them, but got shape {tuple(maps.shape)} and patch size "
            f"{patch_size} for videos of shape {tuple(videos.shape)}."
        )
    sheet = Sheet(moments, frames // moments)
    return sheet.to_sheets(videos), maps.flatten(1, 2) if is_relevance else sheet.to_sheets(maps), patch, sheet
