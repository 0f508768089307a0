"""Models followed as patches leave images, or come back, in the order of a map: along several courses at once."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from captum_gmar.metrics._inputs import (
    PatchSize,
    check_attributions,
    check_count,
    check_images,
    check_patch_size,
    check_relevance,
    patch_scores,
)
from captum_gmar.metrics._outputs import ForwardFunc, Target, class_indices, output_at
from captum_gmar.metrics.removal import Removal
from captum_gmar.metrics.video_layout import VIDEO_DIMS, framewise_removal, lay_out_videos, sheet_patch_size

__all__ = ["PerturbationCurve"]

Readout: TypeAlias = Callable[[Tensor, Tensor | None, int], Tensor]
"""What is followed: from outputs, the targets' classes (N,) or None, and N to a number for each (N,)."""

_TIES = 0  # seed of the order of patches that have the same score
_CPU_BATCH = 16


class PerturbationCurve(NamedTuple):
    """What :func:`insertion`, :func:`deletion` and :func:`prediction_changes` return."""

    auc: Tensor  # (N,) area under the curve over the shares
    curve: Tensor  # (N, steps + 1) what is followed after each step
    shares: Tensor  # (steps + 1,) of the patches that are removed (deletion) or there (insertion), from 0 to 1
    removal: str  # name of the way of removal


class CurveOptions(NamedTuple):
    """What :func:`deletion` takes by these names."""

    patch_size: PatchSize
    steps: int
    removal: Removal
    batch_size: int | None = None


class Course(NamedTuple):
    """In which way patches are taken."""

    least_first: bool  # the least relevant, else the most relevant
    begins_whole: bool  # what is taken leaves the image, else it comes back

    def removed(self, scores: Tensor, counts: Tensor) -> Tensor:
        """Which patches lack (N, S, rows, columns), by their scores (N, rows, columns), so many (S,) being taken."""
        is_taken = _ranks(-scores if self.least_first else scores)[:, None] < counts[:, None, None]
        return is_taken if self.begins_whole else ~is_taken


MOST_FIRST, LEAST_FIRST = Course(False, begins_whole=True), Course(True, begins_whole=True)
BROUGHT_BACK = Course(False, begins_whole=False)


class Ends(NamedTuple):
    """What is followed where a curve begins or ends, whatever the attributions, by each of Q readings."""

    whole: Tensor  # (N, Q) of the whole images
    nothing: Tensor  # (N, Q) of nothing of them


class FollowedCurves(NamedTuple):
    """What :func:`follow` returns."""

    values: Tensor  # (N, courses, steps + 1, readings)
    courses: Sequence[Course]
    readings: Sequence[Readout]
    shares: Tensor  # (steps + 1,)
    removal: str

    def curve(self, course: Course, reading: Readout) -> PerturbationCurve:
        """Of one course, as one reading has it."""
        return self.make_curve(self.values[:, self.courses.index(course), :, self.readings.index(reading)])

    def make_curve(self, curve: Tensor) -> PerturbationCurve:
        """A curve (N, steps + 1) over the same steps."""
        return PerturbationCurve(torch.trapezoid(curve, self.shares.to(curve)), curve, self.shares, self.removal)

    @property
    def ends(self) -> Ends:
        """For other maps of the same images, targets, readings and removal."""
        first, last = self.values[:, 0, 0], self.values[:, 0, -1]
        return Ends(first, last) if self.courses[0].begins_whole else Ends(last, first)


@torch.no_grad()
def follow(
    forward_func: ForwardFunc,
    inputs: Tensor,
    attributions: Tensor,
    target: Target,
    options: CurveOptions,
    courses: Sequence[Course],
    readings: Sequence[Readout],
    ends: Ends | None = None,
) -> FollowedCurves:
    """As :func:`deletion`, along several courses and by several readings at once.

    What two courses have in common is run once: without ties, and with steps that divide the patches, the least
    relevant leave as the most relevant come back. Ends that are known save two passes of each example.
    """
    if isinstance(target, tuple) and len(target) > 1:
        forward_func, target = output_at(forward_func, target), None
    if isinstance(inputs, Tensor) and inputs.dim() == VIDEO_DIMS:
        sheets, maps, sheet = lay_out_videos(inputs, attributions, options.patch_size)
        removal = framewise_removal(options.removal, sheet)
        options = options._replace(patch_size=sheet_patch_size(options.patch_size), removal=removal)
        return follow(sheet.reads_sheets(forward_func), sheets, maps, target, options, courses, readings, ends)
    check_images(inputs)
    scores = _patch_scores(attributions, inputs, options.patch_size)
    patches = scores[0].numel()
    counts = _counts(options.steps, patches).to(inputs.device)
    check_batch_size(options.batch_size)
    indices = class_indices(target, len(inputs))
    shape = len(courses), len(counts), len(readings)
    points = (len(counts) - 2 if ends else len(counts)) * len(courses)
    batch_size = options.batch_size or (min(points, _CPU_BATCH) if inputs.device.type == "cpu" else points)
    at_once = max(1, batch_size // max(points, 1))  # examples

    def along(some: slice) -> Tensor:
        removed = torch.cat([course.removed(scores[some], counts) for course in courses], 1)

        def look(sets: Tensor) -> Tensor:
            outputs = options.removal(forward_func, inputs[some], sets)
            targets = None if indices is None else indices[some].repeat_interleave(sets.shape[1])
            read = [reading(outputs, targets, len(sets) * sets.shape[1]) for reading in readings]
            return torch.stack(read, 1).view(len(sets), -1, len(readings))

        known = None if ends is None else Ends(ends.whole[some], ends.nothing[some])
        return _looked_at_once(removed, look, batch_size, known).view(len(removed), *shape)

    values = torch.cat([along(slice(start, start + at_once)) for start in range(0, len(inputs), at_once)])
    return FollowedCurves(values, tuple(courses), tuple(readings), (counts / patches).to(values), options.removal.name)


def check_removal(removal: Removal | None, default: Removal) -> Removal:
    """The way of removal, or where there is none the default.

    Raises:
        TypeError: if it is something else.
    """
    if removal is None:
        return default
    if isinstance(removal, type) or not callable(removal) or not hasattr(removal, "name"):
        raise TypeError(
            f"removal must be a way of removal, such as Blur() or TokenRemoval(model). Got {removal!r} instead."
        )
    return removal


def check_batch_size(batch_size: int | None) -> None:
    """Raises a ValueError unless it is None or an integer of one or more."""
    if batch_size is not None:
        check_count(batch_size, "batch_size")


def _looked_at_once(removed: Tensor, look: Callable[[Tensor], Tensor], batch_size: int, ends: Ends | None) -> Tensor:
    """What ``look`` makes (N, S, Q) of sets of removed patches (N, S, rows, columns), each set that differs once."""
    distinct, place = torch.unique(removed.transpose(0, 1).flatten(1), dim=0, return_inverse=True)
    whole, nothing = ~distinct.any(1), distinct.all(1)
    kinds = [whole, nothing, ~(whole | nothing)] if ends else [torch.ones_like(whole)]
    sets = distinct[kinds[-1]].view(-1, len(removed), *removed.shape[2:]).transpose(0, 1)
    known = [ends.whole[:, None], ends.nothing[:, None]] if ends else []
    parts = sets.chunk(math.ceil(sets.shape[1] / batch_size), 1) if sets.numel() else ()
    order = torch.cat([kind.nonzero()[:, 0] for kind in kinds])  # of the distinct sets, in the values
    return torch.cat([*known, *map(look, parts)], 1)[:, order.argsort()[place]]


def _patch_scores(attributions: Tensor, inputs: Tensor, patch_size: PatchSize) -> Tensor:
    """Of each patch (N, rows, columns)."""
    if isinstance(attributions, Tensor) and attributions.dim() == 3:
        height, width = inputs.shape[2:]
        patch = None if patch_size is None else check_patch_size(patch_size, height, width)
        if patch is None or attributions.shape[1:] == (height // patch[0], width // patch[1]):
            return check_relevance(attributions, inputs)
    return patch_scores(check_attributions(attributions, inputs), patch_size)


def _counts(steps: int, patches: int) -> Tensor:
    """How many patches are taken after each step (steps + 1,)."""
    check_count(steps, "steps")
    if steps > patches:
        raise ValueError(
            f"steps must be at most the number of patches, {patches}. Got {steps} instead. Pass fewer steps or smaller "
            "patches."
        )
    return torch.arange(steps + 1) * patches // steps


def _ranks(scores: Tensor) -> Tensor:
    """The rank of each patch (N, rows, columns), 0 for the highest score."""
    patches = scores[0].numel()
    shuffled = torch.randperm(patches, generator=torch.Generator().manual_seed(_TIES)).to(scores.device)
    order = shuffled[scores.flatten(1)[:, shuffled].argsort(stable=True, dim=1, descending=True)]
    ranks = torch.arange(patches, device=scores.device).expand_as(order)
    return torch.empty_like(order).scatter_(1, order, ranks).view_as(scores)
