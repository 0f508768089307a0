"""Grid pointing game on mosaics of four images."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from captum_gmar.metrics._inputs import check_attributions, check_images, is_integer
from captum_gmar.metrics.localisation import relevance_mass_accuracy

__all__ = ["CELLS", "grid_pointing_game", "mosaic"]

CELLS = 4  # two rows of two


def mosaic(images: Sequence[Tensor], height: int, width: int) -> Tensor:
    """Resize four images to quarters and join them.

    Args:
        images (sequence of Tensor): Four images (channels, height, width) of any size: top left, top right, bottom
            left, bottom right.
        height (int): Height of the mosaic in pixels, at least 2.
        width (int): Width of the mosaic in pixels, at least 2.

    Returns:
        Tensor (1, channels, height, width).

    Raises:
        TypeError: if an image is not a tensor.
        ValueError: if there are not four images of the same number of channels, or the mosaic is too small.

    Example::

        >>> import torch
        >>> from captum_gmar.metrics import mosaic
        >>> mosaic([torch.full((1, 8, 8), float(number)) for number in range(4)], 2, 2)
        tensor([[[[0., 1.],
                  [2., 3.]]]])
    """
    if len(images) != CELLS:
        raise ValueError(f"images must be four, but got {len(images)}.")
    if not (is_integer(height) and is_integer(width)) or min(height, width) < 2:
        raise ValueError(f"height and width must be integers of two or more, but got {height!r} and {width!r}.")
    for image in images:
        check_images(image[None] if isinstance(image, Tensor) else image)
    channels = {image.shape[0] for image in images}
    if len(channels) > 1:
        raise ValueError(f"images must have the same number of channels, but got {sorted(channels)}.")
    heights, widths = (height // 2, height - height // 2), (width // 2, width - width // 2)
    sizes = [(h, w) for h in heights for w in widths]
    small = [
        F.interpolate(image[None], size, mode="bilinear", align_corners=False, antialias=True)
        for image, size in zip(images, sizes, strict=True)
    ]
    return torch.cat([torch.cat(small[:2], 3), torch.cat(small[2:], 3)], 2)


def grid_pointing_game(attributions: Tensor, cells: Sequence[int]) -> Tensor:
    r"""Compute the share of positive relevance in the explained image's cell of a mosaic (GridPG).

    The score is :func:`relevance_mass_accuracy` of that cell. A map that ignores the class scores 0.25 on average. Use
    four images of different classes that the model classifies correctly.

    Args:
        attributions (Tensor): Attributions (N, channels, height, width) of mosaics, see :func:`mosaic`.
        cells (sequence of int): Cell of the explained class for each mosaic: 0 top left, 1 top right, 2 bottom left,
            3 bottom right.

    Returns:
        Tensor (N,) in [0, 1].

    Raises:
        TypeError: if attributions are not a tensor.
        ValueError: if an attribution is not finite, or cells are not one of 0 to 3 for each mosaic.

    References:
        Rao, Böhle, Schiele: Towards Better Understanding Attribution Methods. CVPR 2022, arXiv 2205.10435. In the
        paper each cell has the model's input size; here the mosaic has.

    Example::

        >>> import torch
        >>> from captum_gmar.metrics import grid_pointing_game
        >>> grid_pointing_game(torch.tensor([[[[3.0, 1.0], [-1.0, 0.0]]]]), [0])
        tensor([0.7500])
    """
    maps = check_attributions(attributions)
    if len(cells) != len(maps) or not all(is_integer(cell) and 0 <= cell < CELLS for cell in cells):
        raise ValueError(f"cells must be one of 0 to {CELLS - 1} for each of {len(maps)} mosaics, but got {cells!r}.")
    height, width = maps.shape[2:]
    top, left = torch.arange(height) < height // 2, torch.arange(width) < width // 2
    rows, columns = torch.stack([top, ~top]), torch.stack([left, ~left])
    masks = torch.stack([rows[cell // 2, :, None] & columns[cell % 2] for cell in cells])
    return relevance_mass_accuracy(maps, masks.to(maps.device))
