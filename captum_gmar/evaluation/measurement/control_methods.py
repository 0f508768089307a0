"""The controls as methods: maps that know nothing, measured like all others."""

from collections.abc import Sequence

import torch
from torch import Tensor

from captum_gmar.evaluation.measurement.rerun_metrics import NumberedMethod
from captum_gmar.metrics.controls import CONTROLS, centre_blob, random_map, uniform_map
from captum_gmar.metrics.video_layout import Sheet

_OTHER_SEED = 1_000_003  # between the random maps of one class and those of the next


def controls(patch_size: tuple[int, int], sheet: Sheet | None = None) -> dict[str, NumberedMethod]:
    """By name; patches of this height and width have one random value each. A video's frames have a blob each."""

    def random(numbers: Sequence[int], inputs: Tensor, target: Tensor | Sequence[int]) -> Tensor:
        copies = len(inputs) // len(numbers)  # of each example, in metrics that change it
        targets = torch.as_tensor(target).expand(len(inputs)).tolist()
        seeds = [numbers[i // copies] + _OTHER_SEED * chosen for i, chosen in enumerate(targets)]
        maps = [random_map(image[None], seed, patch_size) for image, seed in zip(inputs, seeds, strict=True)]
        return torch.cat(maps)

    methods: tuple[NumberedMethod, ...] = (
        random,
        lambda numbers, inputs, target: uniform_map(inputs),
        lambda numbers, inputs, target: centre_blob(inputs) if sheet is None else _blobs(inputs, sheet),
    )
    return dict(zip(CONTROLS, methods, strict=True))


def _blobs(sheets: Tensor, sheet: Sheet) -> Tensor:
    """In the middle of each frame."""
    videos = sheet.to_videos(sheets)
    return sheet.to_sheets(centre_blob(videos.flatten(0, 1)).view(videos.shape) / sheet.frames)
