"""How the target's probability falls as patches are removed, most relevant first, and rises as they come back."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from captum_gmar.metrics.inputs import (
    PatchSize,
    check_attributions,
    check_count,
    check_images,
    check_patch_size,
    check_relevance,
    patch_scores,
)
from captum_gmar.metrics.outputs import ForwardFunc, Target, class_indices, followed
from captum_gmar.metrics.removal import Blur, Removal, Zero

__all__ = ["PerturbationCurve", "deletion", "insertion"]

_TIES = 0  # seed of the order of patches that have the same score
_CPU_BATCH = 16


class PerturbationCurve(NamedTuple):
    """What :func:`insertion` and :func:`deletion` return."""

    auc: Tensor  # (N,) area under the curve over the shares
    curve: Tensor  # (N, steps + 1) what is followed after each step
    shares: Tensor  # (steps + 1,) of the patches that are removed (deletion) or there (insertion), from 0 to 1
    removal: str  # name of the way of removal


def deletion(
    forward_func: ForwardFunc,
    inputs: Tensor,
    attributions: Tensor,
    target: Target = None,
    *,
    patch_size: PatchSize = None,
    steps: int = 28,
    removal: Removal | None = None,
    softmax: bool = True,
    batch_size: int | None = None,
) -> PerturbationCurve:
    r"""
    Removes the most relevant patches first and follows the target's probability: the sooner it falls, the better.

    With P patches and :math:`x_k` the image without its :math:`\lfloor kP/K \rfloor` most relevant ones, after K steps

    .. math:: \mathrm{AUC} = \sum_{k=1}^{K} (s_k - s_{k-1}) \frac{f(x_{k-1}) + f(x_k)}{2},
        \qquad s_k = \frac{\lfloor kP/K \rfloor}{P}

    A patch's score is the sum of its attributions over pixels and channels. Patches of the same score are removed in a
    random order, which is the same for all images: a uniform map is a random order, not the order of reading.

    A low area says that the patches matter to the model as it sees images with parts removed, which it was not trained
    on. It depends on the way of removal, and says nothing of whether people find the map plausible.

    Args:
        forward_func (Callable): Takes images and returns logits (examples, classes). A model in training mode, with
            dropout say, gives no reproducible curve; call its ``eval()`` first.
        inputs (Tensor): Images (N, channels, height, width).
        attributions (Tensor): In the shape of the inputs, as ``attribute`` returns them; or the relevance of patches
            (N, rows, columns), as ``relevance`` returns it.
        target (int, tuple, Tensor, or list, optional): The class that is followed, for all examples or for each, in any
            form that ``attribute`` takes. None is for models with one output per example.
            Default: None
        patch_size (int or tuple[int, int], optional): Height and width of the patches that are removed as a whole; they
            must divide the image. None removes single pixels, or the patches that relevance is given for.
            Default: None
        steps (int, optional): Into how many steps the removal of all patches is divided; at most their number.
            Default: 28
        removal (Removal, optional): What takes patches out, for example ``Mean()`` or ``NoisyLinear()`` of this
            package, or a ``captum_gmar.token_removal.TokenRemoval``.
            Default: as in the paper, ``Zero()`` for deletion and ``Blur()`` for insertion
        softmax (bool, optional): Follow the probability after softmax over the classes. False follows what
            ``forward_func`` returns: the logit, or the probability if it returns probabilities.
            Default: True
        batch_size (int, optional): How many images one call of ``forward_func`` gets at most.
            Default: steps + 1, all steps of one example; at most 16 on the CPU, where more at once is slower

    Returns:
        *PerturbationCurve* of **auc**, **curve**, **shares** and **removal**:
            - **auc** (*Tensor*): (N,), in [0, 1] for probabilities. Lower is better for deletion, higher for insertion.
            - **curve** (*Tensor*): (N, steps + 1), from the whole image to nothing of it; for insertion the other way.
            - **shares** (*Tensor*): (steps + 1,), of the patches that are removed; for insertion, that are there.
            - **removal** (*str*): How patches were removed. Areas compare only between curves where that is the same.

    Raises:
        TypeError: if an argument is of the wrong kind, or ``forward_func`` returns no tensor.
        ValueError: if shapes do not fit, an attribution is not finite, a target is no class, ``patch_size`` does not
            divide the image, or ``steps`` or ``batch_size`` is less than 1.
        FloatingPointError: if an output is NaN.

    References:
        Petsiuk, Das, Saenko: RISE: Randomized Input Sampling for Explanation of Black-box Models. BMVC 2018, arXiv
        1806.07421.

    Example::

        >>> import torch
        >>> from captum_gmar.metrics import deletion
        >>> weights = torch.tensor([[4.0, 1.0], [3.0, 2.0]])
        >>> linear = lambda inputs: (inputs * weights).sum((1, 2, 3))  # one output per example, four patches of a pixel
        >>> inputs = torch.ones(1, 1, 2, 2)
        >>> curves = deletion(linear, inputs, inputs * weights, steps=4, softmax=False)
        >>> curves.curve
        tensor([[10.,  6.,  3.,  1.,  0.]])
        >>> curves.auc  # of ((10 + 6) + (6 + 3) + (3 + 1) + (1 + 0)) / 2 / 4
        tensor([3.7500])
    """
    options = CurveOptions(patch_size, steps, _removal_or(removal, Zero()), softmax, batch_size)
    return DELETION.follow(forward_func, inputs, attributions, target, options)


def insertion(
    forward_func: ForwardFunc,
    inputs: Tensor,
    attributions: Tensor,
    target: Target = None,
    *,
    patch_size: PatchSize = None,
    steps: int = 28,
    removal: Removal | None = None,
    softmax: bool = True,
    batch_size: int | None = None,
) -> PerturbationCurve:
    """
    Brings back the most relevant patches first, from none, and follows the target's probability: the sooner it rises,
    the better.

    Takes what :func:`deletion` takes, returns what it returns and raises what it raises; only the images of the steps
    differ, which hold the most relevant patches instead of lacking them, and the default way of removal, ``Blur()``.

    Example::

        >>> import torch
        >>> from captum_gmar.metrics import Zero, insertion
        >>> weights = torch.tensor([[4.0, 1.0], [3.0, 2.0]])
        >>> linear = lambda inputs: (inputs * weights).sum((1, 2, 3))
        >>> inputs = torch.ones(1, 1, 2, 2)
        >>> insertion(linear, inputs, inputs * weights, steps=4, removal=Zero(), softmax=False).curve
        tensor([[ 0.,  4.,  7.,  9., 10.]])
    """
    options = CurveOptions(patch_size, steps, _removal_or(removal, Blur()), softmax, batch_size)
    return INSERTION.follow(forward_func, inputs, attributions, target, options)


def _removal_or(removal: Removal | None, default: Removal) -> Removal:
    if removal is None:
        return default
    if isinstance(removal, type) or not callable(removal) or not hasattr(removal, "name"):
        raise TypeError(
            f"removal must be a way of removal, such as Blur() or TokenRemoval(model). Got {removal!r} instead."
        )
    return removal


class CurveOptions(NamedTuple):
    """What :func:`deletion` takes by these names."""

    patch_size: PatchSize
    steps: int
    removal: Removal
    softmax: bool = True
    batch_size: int | None = None


class Ends(NamedTuple):
    """What is followed where a curve begins or ends, whatever the attributions."""

    whole: Tensor  # (N,) of the whole images
    nothing: Tensor  # (N,) of nothing of them


class Course(NamedTuple):
    """In which way a curve goes through an image."""

    is_removed: Callable[[Tensor, Tensor], Tensor]  # of ranks, and how many of the highest were taken
    begins_whole: bool

    def ends(self, curve: PerturbationCurve) -> Ends:
        """For other curves of the same images, targets and removal, of either course."""
        first, last = curve.curve[:, 0], curve.curve[:, -1]
        return Ends(first, last) if self.begins_whole else Ends(last, first)

    @torch.no_grad()
    def follow(
        self,
        forward_func: ForwardFunc,
        inputs: Tensor,
        attributions: Tensor,
        target: Target,
        options: CurveOptions,
        ends: Ends | None = None,
    ) -> PerturbationCurve:
        """As :func:`deletion`; ends that are known save two passes of each example."""
        check_images(inputs)
        scores = _scores(attributions, inputs, options.patch_size)
        counts = _counts(options.steps, scores[0].numel()).to(inputs.device)
        looked_at = counts[1:-1] if ends else counts
        batch_size = _batch_size(options.batch_size, len(counts), inputs.device)
        ranks = _ranks(scores)
        targets = class_indices(target, len(inputs))

        def look(examples: slice, counts: Tensor) -> Tensor:
            removed = self.is_removed(ranks[examples, None], counts[:, None, None])  # (n, S, rows, columns)
            outputs = options.removal(forward_func, inputs[examples], removed)
            repeated = None if targets is None else targets[examples].repeat_interleave(len(counts))
            return followed(outputs, repeated, len(removed) * len(counts), options.softmax).view(len(removed), -1)

        curve = inputs.new_empty(len(inputs), 0)
        if len(looked_at):
            at_once = max(1, batch_size // len(looked_at))  # examples
            batches = [slice(start, start + at_once) for start in range(0, len(inputs), at_once)]
            parts = looked_at.chunk(math.ceil(len(looked_at) / batch_size))
            curve = torch.cat([torch.cat([look(batch, part) for part in parts], 1) for batch in batches])
        if ends:
            first, last = ends if self.begins_whole else reversed(ends)
            curve = torch.cat([first[:, None], curve, last[:, None]], 1)
        shares = (counts / scores[0].numel()).to(curve)
        return PerturbationCurve(torch.trapezoid(curve, shares), curve, shares, options.removal.name)


DELETION, INSERTION = Course(torch.lt, begins_whole=True), Course(torch.ge, begins_whole=False)


def _scores(attributions: Tensor, inputs: Tensor, patch_size: PatchSize) -> Tensor:
    """Of each patch (N, rows, columns)."""
    if isinstance(attributions, Tensor) and attributions.dim() == 3:
        height, width = inputs.shape[2:]
        patch = None if patch_size is None else check_patch_size(patch_size, height, width)
        if patch is None or attributions.shape[1:] == (height // patch[0], width // patch[1]):
            return check_relevance(attributions, inputs)
    return patch_scores(check_attributions(attributions, inputs), patch_size)


def _batch_size(batch_size: int | None, points: int, device: torch.device) -> int:
    if batch_size is None:
        return min(points, _CPU_BATCH) if device.type == "cpu" else points
    check_count(batch_size, "batch_size")
    return batch_size


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
