"""Perturbation curves: model outputs while patches are removed or inserted in the order of a map."""

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
from captum_gmar.metrics.video_layout import VIDEO_DIMS, FramewiseRemoval, lay_out_videos

__all__ = ["PerturbationCurve"]

Readout: TypeAlias = Callable[[Tensor, Tensor | None, int], Tensor]
"""Function of outputs, target classes (N,) or None, and N that returns one number per example (N,)."""

_TIE_SEED = 0  # of the random order of patches with equal scores
_CPU_BATCH = 16


class PerturbationCurve(NamedTuple):
    """Result of :func:`insertion`, :func:`deletion` and :func:`prediction_changes`."""

    auc: Tensor  # (N,) area under the curve over the shares
    curve: Tensor  # (N, steps + 1) model output after each step
    shares: Tensor  # (steps + 1,) removed (deletion) or inserted (insertion) share of the patches, from 0 to 1
    removal: str  # name of the removal


class CurveOptions(NamedTuple):
    """Options of :func:`deletion`."""

    patch_size: PatchSize
    steps: int
    removal: Removal
    batch_size: int | None = None


class Course(NamedTuple):
    """Order and direction of a curve."""

    least_first: bool  # the least relevant patches first, else the most relevant
    removes: bool  # patches are removed, else inserted

    def removed_patches(self, scores: Tensor, counts: Tensor) -> Tensor:
        """Return masks of removed patches (N, S, rows, columns) by scores (N, rows, columns) and step counts (S,)."""
        selected = _ranks(-scores if self.least_first else scores)[:, None] < counts[:, None, None]
        return selected if self.removes else ~selected


MOST_FIRST, LEAST_FIRST = Course(False, removes=True), Course(True, removes=True)
BROUGHT_BACK = Course(False, removes=False)


class Ends(NamedTuple):
    """Values at both ends of a curve, which are the same for all attributions, for each of Q readouts."""

    intact: Tensor  # (N, Q) outputs of the whole images
    empty: Tensor  # (N, Q) outputs of images without any patch


class FollowedCurves(NamedTuple):
    """Result of :func:`follow`."""

    values: Tensor  # (N, courses, steps + 1, readouts)
    courses: Sequence[Course]
    readouts: Sequence[Readout]
    shares: Tensor  # (steps + 1,)
    removal: str

    def curve(self, course: Course, readout: Readout) -> PerturbationCurve:
        """Return the curve of one course and one readout."""
        curve = self.values[:, self.courses.index(course), :, self.readouts.index(readout)]
        return PerturbationCurve(torch.trapezoid(curve, self.shares.to(curve)), curve, self.shares, self.removal)

    @property
    def ends(self) -> Ends:
        """Ends for other maps of the same images, targets, readouts and removal."""
        first, last = self.values[:, 0, 0], self.values[:, 0, -1]
        return Ends(first, last) if self.courses[0].removes else Ends(last, first)


@torch.no_grad()
def follow(
    forward_func: ForwardFunc,
    inputs: Tensor,
    attributions: Tensor,
    target: Target,
    options: CurveOptions,
    courses: Sequence[Course],
    readouts: Sequence[Readout],
    ends: Ends | None = None,
) -> FollowedCurves:
    """Run :func:`deletion` for several courses and readouts.

    Each distinct set of removed patches is run once, since courses share sets. Known ends save two passes an example.
    """
    if isinstance(target, tuple) and len(target) > 1:
        forward_func, target = output_at(forward_func, target), None
    if isinstance(inputs, Tensor) and inputs.dim() == VIDEO_DIMS:
        sheets, maps, patch_size, sheet = lay_out_videos(inputs, attributions, options.patch_size)
        options = options._replace(patch_size=patch_size, removal=FramewiseRemoval(options.removal, sheet))
        return follow(sheet.wrap(forward_func), sheets, maps, target, options, courses, readouts, ends)
    check_images(inputs)
    scores = _curve_scores(attributions, inputs, options.patch_size)
    patches = scores[0].numel()
    counts = _counts(options.steps, patches).to(inputs.device)
    if options.batch_size is not None:
        check_count(options.batch_size, "batch_size")
    indices = class_indices(target, len(inputs))
    shape = len(courses), len(counts), len(readouts)
    points = (len(counts) - 2 if ends else len(counts)) * len(courses)
    batch_size = options.batch_size or (min(points, _CPU_BATCH) if inputs.device.type == "cpu" else points)
    size = max(1, batch_size // max(points, 1))  # examples per batch

    def follow_batch(batch: slice) -> Tensor:
        removed = torch.cat([course.removed_patches(scores[batch], counts) for course in courses], 1)

        def evaluate(sets: Tensor) -> Tensor:
            outputs = options.removal(forward_func, inputs[batch], sets)
            targets = None if indices is None else indices[batch].repeat_interleave(sets.shape[1])
            values = [readout(outputs, targets, len(sets) * sets.shape[1]) for readout in readouts]
            return torch.stack(values, 1).view(len(sets), -1, len(readouts))

        batch_ends = None if ends is None else Ends(ends.intact[batch], ends.empty[batch])
        return _evaluate_distinct(removed, evaluate, batch_size, batch_ends).view(len(removed), *shape)

    values = torch.cat([follow_batch(slice(start, start + size)) for start in range(0, len(inputs), size)])
    return FollowedCurves(values, tuple(courses), tuple(readouts), (counts / patches).to(values), options.removal.name)


def check_removal(removal: Removal | None, default: Removal) -> Removal:
    """Return the removal, or the default for None; raise a TypeError for anything else."""
    if removal is None:
        return default
    if isinstance(removal, type) or not callable(removal) or not hasattr(removal, "name"):
        raise TypeError(f"removal must be one, such as Blur() or TokenRemoval(model), but got {removal!r}.")
    return removal


def _evaluate_distinct(
    removed: Tensor, evaluate: Callable[[Tensor], Tensor], batch_size: int, ends: Ends | None
) -> Tensor:
    """Evaluate sets of removed patches (N, S, rows, columns) to (N, S, Q), each distinct set once."""
    distinct, position = torch.unique(removed.transpose(0, 1).flatten(1), dim=0, return_inverse=True)
    intact, empty = ~distinct.any(1), distinct.all(1)
    kinds = [intact, empty, ~(intact | empty)] if ends else [torch.ones_like(intact)]
    sets = distinct[kinds[-1]].view(-1, len(removed), *removed.shape[2:]).transpose(0, 1)
    end_values = [ends.intact[:, None], ends.empty[:, None]] if ends else []
    chunks = sets.chunk(math.ceil(sets.shape[1] / batch_size), 1) if sets.numel() else ()
    order = torch.cat([kind.nonzero()[:, 0] for kind in kinds])  # the values hold the distinct sets kind by kind
    return torch.cat([*end_values, *map(evaluate, chunks)], 1)[:, order.argsort()[position]]


def _curve_scores(attributions: Tensor, inputs: Tensor, patch_size: PatchSize) -> Tensor:
    """Return patch scores (N, rows, columns) of attributions or of patch relevance."""
    if isinstance(attributions, Tensor) and attributions.dim() == 3:
        height, width = inputs.shape[2:]
        patch = None if patch_size is None else check_patch_size(patch_size, height, width)
        if patch is None or attributions.shape[1:] == (height // patch[0], width // patch[1]):
            return check_relevance(attributions, inputs)
    return patch_scores(check_attributions(attributions, inputs), patch_size)


def _counts(steps: int, patches: int) -> Tensor:
    """Return the number of selected patches after each step (steps + 1,)."""
    check_count(steps, "steps")
    if steps > patches:
        raise ValueError(f"steps must be at most the number of patches, {patches}, but got {steps}. Pass fewer steps.")
    return torch.arange(steps + 1) * patches // steps


def _ranks(scores: Tensor) -> Tensor:
    """Return each patch's rank (N, rows, columns), 0 for the highest score."""
    patches = scores[0].numel()
    shuffled = torch.randperm(patches, generator=torch.Generator().manual_seed(_TIE_SEED)).to(scores.device)
    order = shuffled[scores.flatten(1)[:, shuffled].argsort(stable=True, dim=1, descending=True)]
    ranks = torch.arange(patches, device=scores.device).expand_as(order)
    return torch.empty_like(order).scatter_(1, order, ranks).view_as(scores)
