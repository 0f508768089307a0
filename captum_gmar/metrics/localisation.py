"""Localisation metrics with masks or boxes of objects."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from captum_gmar.metrics._inputs import check_attributions, check_count, check_masks, patch_scores

__all__ = ["PointingGame", "boxes_to_masks", "pointing_game", "relevance_mass_accuracy", "relevance_rank_accuracy"]


class PointingGame(NamedTuple):
    """Result of :func:`pointing_game`."""

    score: Tensor  # (N,) score of the map
    centre: Tensor  # (N,) score of the image's centre


def pointing_game(attributions: Tensor, masks: Tensor) -> PointingGame:
    """Check whether the map's maximum is on the object.

    If several pixels share the maximum, as all pixels of a patch do, the score is the share of these pixels on the
    object. The paper also counts points up to 15 pixels away. Objects in photos are often in the middle, so a method
    must beat the score of the image's centre (its one, two or four middle pixels).

    Args:
        attributions (Tensor): Attributions (N, channels, height, width), summed over channels.
        masks (Tensor): Boolean (N, height, width), True on the object; see :func:`boxes_to_masks`.

    Returns:
        *PointingGame* of **score** and **centre**, (N,) each, in [0, 1].

    Raises:
        TypeError: if attributions or masks are not tensors, or masks not boolean.
        ValueError: if shapes do not fit, an attribution is not finite, or a mask is empty.

    References:
        Zhang, Bargal, Lin, Brandt, Shen, Sclaroff: Top-down Neural Attention by Excitation Backprop. International
        Journal of Computer Vision 126, 2018, arXiv 1608.00507.

    Example::

        >>> import torch
        >>> from captum_gmar.metrics import pointing_game
        >>> attributions = torch.tensor([[[[0.0, 3.0, 1.0]]]])
        >>> pointing_game(attributions, torch.tensor([[[False, True, True]]])).score
        tensor([1.])
    """
    maps, masks = _checked_masks(attributions, masks)
    hits = masks.to(maps.dtype)  # (N, H, W)
    maxima = (maps == maps.amax((1, 2), keepdim=True)).to(maps.dtype)
    centre = _centre(maps)
    score = (hits * maxima).sum((1, 2)) / maxima.sum((1, 2))
    return PointingGame(score.float(), ((hits * centre).sum((1, 2)) / centre.sum()).float())


def relevance_mass_accuracy(attributions: Tensor, masks: Tensor) -> Tensor:
    r"""Compute the share of positive relevance on the object.

    .. math:: \frac{\sum_{i \in \mathrm{object}} r_i^+}{\sum_i r_i^+}

    with r the map summed over channels and negative values set to 0. A uniform map scores the object's share of the
    area; a map without positive relevance counts as uniform.

    Arguments and errors are those of :func:`pointing_game`.

    Returns:
        Tensor (N,) in [0, 1].

    References:
        Arras, Osman, Samek: CLEVR-XAI: A benchmark dataset for the ground truth evaluation of neural network
        explanations. Information Fusion 81, 2022, arXiv 2003.07258.

    Example::

        >>> import torch
        >>> from captum_gmar.metrics import relevance_mass_accuracy
        >>> attributions = torch.tensor([[[[-1.0, 3.0, 1.0]]]])
        >>> relevance_mass_accuracy(attributions, torch.tensor([[[True, True, False]]]))
        tensor([0.7500])
    """
    maps, masks = _checked_masks(attributions, masks)
    relevance = maps.clamp(min=0)
    relevance = torch.where((relevance == 0).all(2).all(1)[:, None, None], 1, relevance)
    return ((relevance * masks).sum((1, 2)) / relevance.sum((1, 2))).float()


def relevance_rank_accuracy(attributions: Tensor, masks: Tensor) -> Tensor:
    r"""Compute the share of the K most relevant pixels on the object, which has K pixels.

    .. math:: \frac{|P_{\mathrm{top}\,K} \cap \mathrm{object}|}{K}

    Pixels that tie with the K-th count equally, so the score is the average over all their orders. Arguments and
    errors are those of :func:`pointing_game`.

    Returns:
        Tensor (N,) in [0, 1]. A uniform map scores the object's share of the area.

    References:
        Arras, Osman, Samek: CLEVR-XAI: A benchmark dataset for the ground truth evaluation of neural network
        explanations. Information Fusion 81, 2022, arXiv 2003.07258.

    Example::

        >>> import torch
        >>> from captum_gmar.metrics import relevance_rank_accuracy
        >>> attributions = torch.tensor([[[[5.0, 3.0, 4.0, 0.0]]]])
        >>> relevance_rank_accuracy(attributions, torch.tensor([[[True, True, False, False]]]))
        tensor([0.5000])
    """
    maps, masks = _checked_masks(attributions, masks)
    relevance, hits = maps.flatten(1), masks.flatten(1)
    size = hits.sum(1, keepdim=True)  # (N, 1), K
    last = relevance.sort(1, descending=True).values.gather(1, size - 1)
    higher, ties = relevance > last, relevance == last
    part = (size - higher.sum(1, keepdim=True)) / ties.sum(1, keepdim=True)  # weight of pixels that tie with K
    return ((higher + part * ties) * hits).sum(1) / size[:, 0]


def boxes_to_masks(boxes: Sequence[Sequence[Sequence[float]]], height: int, width: int) -> Tensor:
    """Convert each image's boxes to one mask.

    Args:
        boxes (sequence): One or more boxes per image, each (x0, y0, x1, y1) in pixels from the top left corner. A box
            holds the pixels whose centres it holds: (0, 0, 2, 1) holds the first two pixels of the first row.
        height (int): Height of the images in pixels.
        width (int): Width of the images in pixels.

    Returns:
        Tensor: Boolean **masks** (N, height, width), True in any of the image's boxes.

    Raises:
        ValueError: if an image has no box, or a box is not four finite numbers, is not inside the image, or holds no
            pixel's centre.

    Example::

        >>> from captum_gmar.metrics import boxes_to_masks
        >>> boxes_to_masks([[(0, 0, 2, 1)]], height=2, width=3).int()
        tensor([[[1, 1, 0],
                 [0, 0, 0]]], dtype=torch.int32)
    """
    check_count(height, "height")
    check_count(width, "width")
    if not len(boxes) or not all(map(len, boxes)):
        raise ValueError("boxes must be at least one for each of at least one image, but got an empty list.")
    return torch.stack([torch.stack([_box_mask(box, height, width) for box in image]).any(0) for image in boxes])


def _box_mask(box: Sequence[float], height: int, width: int) -> Tensor:
    corners = torch.as_tensor(box, dtype=torch.float64)
    if corners.shape != (4,) or not corners.isfinite().all():
        raise ValueError(f"box must be four finite numbers (x0, y0, x1, y1), but got {box!r}.")
    x0, y0, x1, y1 = corners
    if not (0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height):
        raise ValueError(
            f"box must be (x0, y0, x1, y1) inside the image of {width}x{height} pixels, width by height, with x0 < x1 "
            f"and y0 < y1, but got {tuple(box)}. Scale boxes as the image is scaled."
        )
    x, y = torch.arange(width) + 0.5, torch.arange(height) + 0.5
    mask: Tensor = ((y0 <= y) & (y < y1))[:, None] & (x0 <= x) & (x < x1)
    if not mask.any():
        raise ValueError(f"box must hold the centre of a pixel, but got {tuple(box)}.")
    return mask


def _checked_masks(attributions: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    """Return maps (N, H, W), summed over channels, and masks."""
    attributions = check_attributions(attributions)
    return patch_scores(attributions, None), check_masks(masks, attributions)


def _centre(maps: Tensor) -> Tensor:
    """Return (H, W), 1 at the middle pixel or pixels and 0 elsewhere."""
    height, width = maps.shape[1:]
    centre = maps.new_zeros(height, width)
    centre[(height - 1) // 2 : height // 2 + 1, (width - 1) // 2 : width // 2 + 1] = 1
    return centre
