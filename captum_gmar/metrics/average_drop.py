"""Average drop, increase and gain: the target's probability for the image times its map."""

from typing import NamedTuple

import torch
from torch import Tensor

from captum_gmar.metrics._inputs import check_attributions, check_count, check_images, patch_scores
from captum_gmar.metrics._outputs import ForwardFunc, Target, class_indices, target_output

__all__ = ["MaskedProbability", "masked_probability"]


class MaskedProbability(NamedTuple):
    """Result of :func:`masked_probability`: Y and O, and their scores, whose means over examples are in percent."""

    image: Tensor  # (N,) Y, target's probability for the image
    masked: Tensor  # (N,) O, target's probability for the image times its map

    @property
    def drop(self) -> Tensor:
        """Average drop (N,) max(0, Y - O) / Y in [0, 1]. Lower is better, but a constant map has no drop: see gain."""
        return _share(self.image - self.masked, self.image)

    @property
    def increase(self) -> Tensor:
        """Average increase in confidence (N,), 1 where Y < O and else 0. Higher is better."""
        return (self.masked > self.image).to(self.image.dtype)

    @property
    def gain(self) -> Tensor:
        """Average gain (N,) max(0, O - Y) / (1 - Y) in [0, 1]. Higher is better."""
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
    r"""Compute the target's probability for each image, Y, and for the image times its map, O.

    The map m is summed over channels, scaled to [0, 1] within each image and multiplied with every channel:

    .. math:: x \odot n(m), \qquad n(m) = \frac{m - \min m}{\max m - \min m}

    With pixels normalised by mean and standard deviation, masked pixels become the data set's mean colour, not black.
    A constant map leaves the image unchanged. The papers upsample their maps bilinearly; here a patch map keeps its
    sharp edges. Properties of the result are the average drop, increase and gain.

    Args:
        forward_func, target, softmax: As in :func:`deletion`.
        inputs (Tensor): Images (N, channels, height, width).
        attributions (Tensor): Attributions in the shape of the inputs.
        batch_size (int, optional): Maximal number of images per call of ``forward_func``. Default: None, all images.

    Returns:
        *MaskedProbability* of **image**, Y, and **masked**, O, (N,) each, in [0, 1].

    Raises:
        TypeError: if an argument has the wrong type, or ``forward_func`` does not return a tensor.
        ValueError: if shapes do not fit, an attribution is not finite, a target is not a class, or an output is not a
            probability.
        FloatingPointError: if an output is NaN.

    References:
        Drop and increase: Chattopadhay, Sarkar, Howlader, Balasubramanian: Grad-CAM++: Generalized Gradient-based
        Visual Explanations for Deep Convolutional Networks. WACV 2018, arXiv 1710.11063. Gain: Zhang, Torres, Sicre,
        Avrithis, Ayache: Opti-CAM: Optimizing saliency maps for interpretability. Computer Vision and Image
        Understanding 248, 2024, arXiv 2301.07002.
    """
    check_images(inputs)
    maps = _normalize(check_attributions(attributions, inputs)).to(inputs.dtype)
    targets = class_indices(target, len(inputs))
    batch_size = len(inputs) if batch_size is None else batch_size
    check_count(batch_size, "batch_size")

    def probabilities(images: Tensor, batch: slice) -> Tensor:
        classes = None if targets is None else targets[batch]
        values = target_output(forward_func(images), classes, len(images), softmax)
        if ((values < 0) | (values > 1)).any():
            raise ValueError(
                f"outputs must be probabilities from 0 to 1, but got values from {values.min():.4g} to "
                f"{values.max():.4g}. Pass softmax=True for logits."
            )
        return values

    batches = [slice(start, start + batch_size) for start in range(0, len(inputs), batch_size)]
    return MaskedProbability(
        image=torch.cat([probabilities(inputs[batch], batch) for batch in batches]),
        masked=torch.cat([probabilities(inputs[batch] * maps[batch], batch) for batch in batches]),
    )


def _normalize(attributions: Tensor) -> Tensor:
    """Return the maps (N, 1, H, W) scaled to [0, 1]; a constant map becomes ones."""
    maps = patch_scores(attributions, None)[:, None]
    low, high = maps.amin((2, 3), keepdim=True), maps.amax((2, 3), keepdim=True)
    return torch.where(high > low, (maps - low) / (high - low), 1)


def _share(change: Tensor, possible: Tensor) -> Tensor:
    """Return the positive change as a share of the possible change, 0 where none is possible."""
    return torch.where(possible > 0, change.clamp(min=0) / possible, 0)
