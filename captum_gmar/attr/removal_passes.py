"""Forward passes over images of which patches are removed, to measure maps by."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from captum_gmar.attr.budget import Cell, choose_map
from captum_gmar.attr.patch_relevance import images_at_once
from captum_gmar.attr.scores import shares
from captum_gmar.engine._captum import (
    ExpansionTypes,
    TargetType,
    _expand_additional_forward_args,
    _expand_target,
    _format_additional_forward_args,
)
from captum_gmar.engine.models.patch_grid import Logits, PatchGrid
from captum_gmar.engine.plan import Explanation
from captum_gmar.engine.request import Request, explain_in_halves
from captum_gmar.engine.targets import select
from captum_gmar.metrics import Blur, Mean

FILLS = (Mean(), Blur())
FORWARDS_PER_PASS = 3  # a backward pass takes about twice the time of a forward pass
PER_EXAMPLE = ExpansionTypes.repeat_interleave


class RemovalPasses(NamedTuple):
    """A model's readouts of one target: its logit, and the logistic function of its score.

    Where the score is the log-odds, the second is the probability.
    """

    forward_func: Logits
    score: Callable[[Tensor], Tensor]  # of the logits
    grid: PatchGrid
    pixels: Tensor  # (N, channels, height, width)
    target: TargetType
    request: Request  # with further arguments, and the contrast

    def read_out(self, logits: Tensor, target: TargetType, contrast: TargetType) -> Tensor:
        """Return both readouts (N, 2) of the logits (N, classes), in double precision on the CPU."""
        logits = logits.detach().cpu().double()  # which not every device has
        scores = select(self.score(logits), target, contrast)
        return torch.stack([select(logits, target, contrast), scores.sigmoid()], 1)

    def intact(self, logits: Tensor) -> Tensor:
        """Return the readouts (N, 2) of the whole images, whose logits (N, classes) are known."""
        return self.read_out(logits, self.target, self.request.contrast)

    def measure(self, removed: Tensor, cells: Sequence[Cell]) -> Tensor:
        """Return readouts (N, C, D, 2) of the images without removed patches (N, C, D, P), filled as each cell says."""
        each = removed[0, ..., 0].numel()
        fills = torch.stack([fill.replacement(self.pixels, removed).expand_as(self.pixels[:, None]) for fill in FILLS])
        numbers = torch.tensor([cell.fill for cell in cells]).repeat(len(removed) * removed.shape[1])
        arguments = _format_additional_forward_args(self.request.additional_forward_args)
        target, contrast = (_expand_target(t, each, PER_EXAMPLE) for t in (self.target, self.request.contrast))
        more = _expand_additional_forward_args(arguments, each, PER_EXAMPLE)
        rows = Request([target], more, images_at_once(self.pixels.device), contrast)

        def run(row: Tensor, request: Request) -> Tensor:
            (targets,) = request.targets_for(None, len(row))
            image = row // each
            is_removed = self._to_pixels(removed.flatten(0, 2)[row].to(self.pixels.device))
            images = torch.where(is_removed, fills[numbers[row], image, 0], self.pixels[image])
            logits = self.forward_func(
                images, *(_format_additional_forward_args(request.additional_forward_args) or ())
            )
            return self.read_out(logits, targets, request.contrast)

        with torch.no_grad():
            batches = rows.batches(torch.arange(removed[..., 0].numel()))
            readouts = [readout for batch in batches for readout in explain_in_halves(run, *batch)]
        return torch.cat(readouts).view(*removed.shape[:3], -1)

    def _to_pixels(self, removed: Tensor) -> Tensor:
        """Return removed pixels (M, 1, height, width) of removed patches (M, P); none outside of all patches."""
        height, width = self.pixels.shape[2:]
        patches = removed.view(-1, 1, *self.grid.shape)
        pixels = patches.repeat_interleave(self.grid.patch_height, 2).repeat_interleave(self.grid.patch_width, 3)
        return F.pad(pixels, (0, width - pixels.shape[3], 0, height - pixels.shape[2]))


def choose_explanation(
    candidates: Explanation,
    passes: int,
    forward_func: Logits,
    score: Callable[[Tensor], Tensor],
    pixels: Tensor,
    target: TargetType,
    request: Request,
) -> Explanation:
    """Choose one of the candidates' maps (N, C, T), or one between them, by a budget of passes.

    The prefix tokens keep the shares that they have in the first map.
    """
    grid, maps = candidates.grid, candidates.relevance
    assert isinstance(grid, PatchGrid)
    assert candidates.logits is not None
    passes_of = RemovalPasses(forward_func, score, grid, pixels, target, request)
    prefix, patches = maps[:, 0, : -grid.patches], maps[..., -grid.patches :]
    intact = passes_of.intact(candidates.logits)
    forwards = FORWARDS_PER_PASS * (passes - 1)
    chosen = choose_map(patches.cpu().double(), forwards, grid.shape, passes_of.measure, intact)
    left = 1 - prefix.abs().sum(-1, keepdim=True)
    return candidates._replace(relevance=torch.cat([prefix, (shares(chosen) * left).to(prefix)], -1))
