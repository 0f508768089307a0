"""What is left of the target's probability when the image is multiplied by its map."""

from typing import NamedTuple

import torch
from torch import Tensor

from captum_gmar.metrics._inputs import check_attributions, check_count, check_images, patch_scores
from captum_gmar.metrics._outputs import ForwardFunc, Target, class_indices, target_output

__all__ = ["MaskedProbability", "average_drop", "average_gain", "average_increase", "masked_probability"]


class MaskedProbability(NamedTuple):
    """What :func:`masked_probability` returns, and the scores that are made of it."""

    image: Tensor  # (N,) probability of the target for the image
    masked: Tensor  # (N,) for the image times its map

    @property
    def drop(self) -> Tensor:
        """(N,) what :func:`average_drop` returns."""
        return _share(self.image - self.masked, self.image)

    @property
    def increase(self) -> Tensor:
        """(N,) what :func:`average_increase` returns."""
        return (self.masked > self.image).to(self.image.dtype)

    @property
    def gain(self) -> Tensor:
        """(N,) what :func:`average_gain` returns."""
        return _share(self.masked - self.image, 1 - self.image)


@torch.no_grad()
def masked_probability(
    forward_func: ForwardFunc,
    inputs: Tensor,
    attributions: Tensor,
    target: Target = None,
    *,
    softmax: bool = True,
    batch_size: int | None = None,
) -> MaskedProbability:
    r"""
    The target's probability for each image, Y, and for the image times its map, O.

    The map m is summed over channels and scaled to [0, 1] within each image; every channel is multiplied by it,

    .. math:: x \odot n(m), \qquad n(m) = \frac{m - \min m}{\max m - \min m}

    It is the inputs as they are given that are multiplied. With pixels normalised by mean and standard deviation, what
    the map leaves out therefore becomes the mean colour of the data set, not black. A map of one value everywhere
    leaves the image as it is. The map's resolution is taken as it is too: the papers upsample theirs bilinearly, and a
    map of patches has sharp edges.

    Args:
        forward_func (Callable): Takes images and returns logits (examples, classes).
        inputs (Tensor): Images (N, channels, height, width).
        attributions (Tensor): In the shape of the inputs.
        target (int, tuple, Tensor, or list, optional): The class that is followed, for all examples or for each.
            Default: None
        softmax (bool, optional): Take the softmax of what ``forward_func`` returns. Pass False if it returns
            probabilities; logits will not do here.
            Default: True
        batch_size (int, optional): How many images one call of ``forward_func`` gets at most.
            Default: None, all at once

    Returns:
        *MaskedProbability* of **image** and **masked**:
            - **image** (*Tensor*): (N,), Y, in [0, 1].
            - **masked** (*Tensor*): (N,), O, in [0, 1].

            Its properties ``drop``, ``increase`` and ``gain`` are the scores of that name, without another pass.

    Raises:
        TypeError: if an argument is of the wrong kind, or ``forward_func`` returns no tensor.
        ValueError: if shapes do not fit, an attribution is not finite, a target is no class, or what is followed is no
            probability.
        FloatingPointError: if an output is NaN.
    """
    check_images(inputs)
    maps = _between_0_and_1(check_attributions(attributions, inputs)).to(inputs.dtype)
    targets = class_indices(target, len(inputs))
    batch_size = len(inputs) if batch_size is None else batch_size
    check_count(batch_size, "batch_size")

    def follow(start: int, images: Tensor) -> Tensor:
        some = None if targets is None else targets[start : start + len(images)]
        return _check_probabilities(target_output(forward_func(images), some, len(images), softmax))

    starts = range(0, len(inputs), batch_size)
    batches = list(zip(starts, torch.split(inputs, batch_size), torch.split(maps, batch_size), strict=True))
    return MaskedProbability(
        image=torch.cat([follow(start, images) for start, images, _ in batches]),
        masked=torch.cat([follow(start, images * weights) for start, images, weights in batches]),
    )


def average_drop(
    forward_func: ForwardFunc,
    inputs: Tensor,
    attributions: Tensor,
    target: Target = None,
    *,
    softmax: bool = True,
    batch_size: int | None = None,
) -> Tensor:
    r"""
    By which share the target's probability drops when only what the map shows is left.

    .. math:: \frac{\max(0, Y - O)}{Y}

    with Y and O of :func:`masked_probability`, which takes the same arguments and raises the same errors. Their mean
    over examples, times 100, is the average drop in percent. Lower is better, but a map that leaves the whole image
    has no drop at all: read it together with :func:`average_gain`.

    Returns:
        Tensor (N,) in [0, 1].

    References:
        Chattopadhay, Sarkar, Howlader, Balasubramanian: Grad-CAM++: Generalized Gradient-based Visual Explanations for
        Deep Convolutional Networks. WACV 2018, arXiv 1710.11063.
    """
    return masked_probability(forward_func, inputs, attributions, target, softmax=softmax, batch_size=batch_size).drop


def average_increase(
    forward_func: ForwardFunc,
    inputs: Tensor,
    attributions: Tensor,
    target: Target = None,
    *,
    softmax: bool = True,
    batch_size: int | None = None,
) -> Tensor:
    r"""
    Whether the target's probability is higher when only what the map shows is left.

    .. math:: \mathbb{1}[Y < O]

    with Y and O of :func:`masked_probability`, which takes the same arguments and raises the same errors. Their mean
    over examples, times 100, is the average increase (increase in confidence) in percent. Higher is better.

    Returns:
        Tensor (N,) of zeros and ones.

    References:
        Chattopadhay, Sarkar, Howlader, Balasubramanian: Grad-CAM++: Generalized Gradient-based Visual Explanations for
        Deep Convolutional Networks. WACV 2018, arXiv 1710.11063.
    """
    return masked_probability(
        forward_func, inputs, attributions, target, softmax=softmax, batch_size=batch_size
    ).increase


def average_gain(
    forward_func: ForwardFunc,
    inputs: Tensor,
    attributions: Tensor,
    target: Target = None,
    *,
    softmax: bool = True,
    batch_size: int | None = None,
) -> Tensor:
    r"""
    By which share of what is possible the target's probability gains when only what the map shows is left.

    .. math:: \frac{\max(0, O - Y)}{1 - Y}

    with Y and O of :func:`masked_probability`, which takes the same arguments and raises the same errors. Their mean
    over examples, times 100, is the average gain in percent. Higher is better.

    Returns:
        Tensor (N,) in [0, 1].

    References:
        Zhang, Torres, Sicre, Avrithis, Ayache: Opti-CAM: Optimizing saliency maps for interpretability. Computer
        Vision and Image Understanding 248, 2024, arXiv 2301.07002.
    """
    return masked_probability(forward_func, inputs, attributions, target, softmax=softmax, batch_size=batch_size).gain


def _between_0_and_1(attributions: Tensor) -> Tensor:
    """The maps (N, 1, H, W) in [0, 1]; ones where a map has one value everywhere."""
    maps = patch_scores(attributions, None)[:, None]
    low, high = maps.amin((2, 3), keepdim=True), maps.amax((2, 3), keepdim=True)
    return torch.where(high > low, (maps - low) / (high - low), 1)


def _share(change: Tensor, possible: Tensor) -> Tensor:
    """Zero where nothing is possible."""
    return torch.where(possible > 0, change.clamp(min=0) / possible, 0)


def _check_probabilities(probabilities: Tensor) -> Tensor:
    if ((probabilities < 0) | (probabilities > 1)).any():
        raise ValueError(
            f"Expected probabilities from 0 to 1 but got values from {probabilities.min():.4g} to "
            f"{probabilities.max():.4g}. Pass softmax=True for logits."
        )
    return probabilities
