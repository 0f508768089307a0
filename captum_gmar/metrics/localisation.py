"""Whether a map lies on the object, where masks or boxes say what the object is."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from captum_gmar.metrics._inputs import check_attributions, check_count, check_masks, patch_scores

__all__ = ["PointingGame", "boxes_to_masks", "pointing_game", "relevance_mass_accuracy", "relevance_rank_accuracy"]


class PointingGame(NamedTuple):
    """What :func:`pointing_game` returns."""

    score: Tensor  # (N,) of the map
    centre: Tensor  # (N,) of the image's centre, which knows nothing


def pointing_game(attributions: Tensor, masks: Tensor) -> PointingGame:
    """
    Whether the map's maximum lies on the object.

    Where several pixels share the maximum, as all pixels of a patch do, the score is the share of them that lies on the
    object: what a point drawn among them scores on average. A point is on the object or not: the paper also counts
    points up to 15 pixels away. Objects in photos are often in the middle, so the score of
    the image's centre (of its middle pixel, or of the two or four of them) comes with it: that is what to beat.

    Args:
        attributions (Tensor): (N, channels, height, width); summed over channels.
        masks (Tensor): Boolean (N, height, width), True on the object; see :func:`boxes_to_masks`.

    Returns:
        *PointingGame* of **score** and **centre**:
            - **score** (*Tensor*): (N,) in [0, 1].
            - **centre** (*Tensor*): (N,) in [0, 1].

    Raises:
        TypeError: if attributions or masks are no tensors, or masks not boolean.
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
    r"""
    Which share of the relevance lies on the object.

    .. math:: \frac{\sum_{i \in \mathrm{object}} r_i^+}{\sum_i r_i^+}

    with r the map summed over channels; what is negative counts as zero. A map without positive relevance says no more
    than a uniform one and counts as such. A uniform map scores the object's share of the area.

    Args:
        attributions (Tensor): (N, channels, height, width).
        masks (Tensor): Boolean (N, height, width), True on the object; see :func:`boxes_to_masks`.

    Returns:
        Tensor (N,) in [0, 1].

    Raises:
        TypeError: if attributions or masks are no tensors, or masks not boolean.
        ValueError: if shapes do not fit, an attribution is not finite, or a mask is empty.

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
    r"""
    Which share of the K most relevant pixels lies on the object, K being the number of pixels of the object.

    .. math:: \frac{|P_{\mathrm{top}\,K} \cap \mathrm{object}|}{K}

    Where pixels share the relevance of the K-th, each of them counts with the same part, so that the result does not
    depend on their order: it is the average over all orders.

    Args:
        attributions (Tensor): (N, channels, height, width); summed over channels.
        masks (Tensor): Boolean (N, height, width), True on the object; see :func:`boxes_to_masks`.

    Returns:
        Tensor (N,) in [0, 1]. A uniform map scores the object's share of the area.

    Raises:
        TypeError: if attributions or masks are no tensors, or masks not boolean.
        ValueError: if shapes do not fit, an attribution is not finite, or a mask is empty.

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
    relevance, on_object = maps.flatten(1), masks.flatten(1)
    size = on_object.sum(1, keepdim=True)  # (N, 1), K
    last = relevance.sort(1, descending=True).values.gather(1, size - 1)
    above, level = relevance > last, relevance == last
    part = (size - above.sum(1, keepdim=True)) / level.sum(1, keepdim=True)  # of each pixel as relevant as the K-th
    return ((above + part * level) * on_object).sum(1) / size[:, 0]


def boxes_to_masks(boxes: Sequence[Sequence[Sequence[float]]], height: int, width: int) -> Tensor:
    """
    Masks of the boxes of each image.

    Args:
        boxes (sequence): For each image its boxes, at least one, each as (x0, y0, x1, y1) in pixels from the top left
            corner. A pixel lies in a box if its centre does: in (0, 0, 2, 1) lie the first two pixels of the first row.
        height (int): Of the images, in pixels.
        width (int): Of the images, in pixels.

    Returns:
        Tensor: Boolean **masks** (N, height, width), True in any of the image's boxes.

    Raises:
        ValueError: if an image has no box, or a box is not four finite numbers, lies outside the image, or holds no
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
        raise ValueError("Expected at least one image, and at least one box for each, but got an empty list.")
    return torch.stack([torch.stack([_box_mask(box, height, width) for box in image]).any(0) for image in boxes])


def _box_mask(box: Sequence[float], height: int, width: int) -> Tensor:
    corners = torch.as_tensor(box, dtype=torch.float64)
    if corners.shape != (4,) or not corners.isfinite().all():
        raise ValueError(f"A box must be four finite numbers (x0, y0, x1, y1). Got {box!r} instead.")
    x0, y0, x1, y1 = corners
    if not (0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height):
        raise ValueError(
            f"Expected a box (x0, y0, x1, y1) inside the image of {width}x{height} pixels, width by height, with "
            f"x0 < x1 and y0 < y1, but got {tuple(box)}. Scale boxes as the image is scaled."
        )
    x, y = torch.arange(width) + 0.5, torch.arange(height) + 0.5
    mask: Tensor = ((y0 <= y) & (y < y1))[:, None] & (x0 <= x) & (x < x1)
    if not mask.any():
        raise ValueError(f"Expected a box that holds the centre of a pixel but got {tuple(box)}.")
    return mask


def _checked_masks(attributions: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    """The maps (N, H, W), summed over channels, and the masks."""
    attributions = check_attributions(attributions)
    return patch_scores(attributions, None), check_masks(masks, attributions)


def _centre(maps: Tensor) -> Tensor:
    """One at the middle pixel or pixels, zero elsewhere (H, W)."""
    height, width = maps.shape[1:]
    centre = maps.new_zeros(height, width)
    centre[(height - 1) // 2 : height // 2 + 1, (width - 1) // 2 : width // 2 + 1] = 1
    return centre
