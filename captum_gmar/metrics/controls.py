"""Control maps, which ignore the model."""

import torch
from torch import Tensor

from captum_gmar.metrics._inputs import PatchSize, check_images, check_patch_size
from captum_gmar.metrics.removal import check_seed

__all__ = ["centre_blob", "control_maps", "random_map", "uniform_map"]

CONTROLS = ("random map", "uniform map", "centre blob")  # names in tables


def random_map(inputs: Tensor, seed: int = 0, patch_size: PatchSize = None) -> Tensor:
    """Sample uniformly distributed attributions, one value per patch.

    Example i uses seed + i. Pass the index of a batch's first example as the seed to get the same maps for any batch
    size.

    Args:
        inputs (Tensor): Images (N, channels, height, width).
        seed (int, optional): Seed of the first example.
        patch_size (int or tuple[int, int], optional): Height and width of the patches. None samples each pixel.

    Returns:
        Tensor: Attributions in the shape of the inputs, 0 or more, summing to 1 over each image.

    Raises:
        TypeError: if ``inputs`` is not a tensor, or ``patch_size`` does not hold integers.
        ValueError: if ``inputs`` are not images, ``seed`` is not an integer, or ``patch_size`` does not divide the
            images.
    """
    check_images(inputs)
    check_seed(seed)
    height, width = check_patch_size(patch_size, *inputs.shape[2:])
    grid = inputs.shape[2] // height, inputs.shape[3] // width
    generators = [torch.Generator().manual_seed(seed + example) for example in range(len(inputs))]
    maps = torch.stack([torch.rand(grid, generator=generator) for generator in generators])
    return _attributions(maps.repeat_interleave(height, 1).repeat_interleave(width, 2), inputs)


def uniform_map(inputs: Tensor) -> Tensor:
    """Return the same attribution for every pixel, so that curves remove patches in a random order.

    Returns:
        Tensor: Attributions in the shape of the inputs (N, channels, height, width), summing to 1 over each image.
    """
    check_images(inputs)
    return _attributions(torch.ones(len(inputs), *inputs.shape[2:]), inputs)


def centre_blob(inputs: Tensor) -> Tensor:
    r"""Return a Gaussian blob in the middle of the image, where photographers place objects.

    .. math:: e^{-(u^2 + v^2) / (2 \cdot 0.5^2)}, \qquad u, v \in [-1, 1]

    Returns:
        Tensor: Attributions in the shape of the inputs (N, channels, height, width), summing to 1 over each image.
    """
    check_images(inputs)
    vertical, horizontal = ((torch.arange(size) * 2 + 1) / size - 1 for size in inputs.shape[2:])  # pixel centres
    blob = torch.exp(-(vertical[:, None] ** 2 + horizontal**2) / (2 * 0.5**2))
    return _attributions(blob.expand(len(inputs), -1, -1), inputs)


def control_maps(inputs: Tensor, seed: int = 0, patch_size: PatchSize = None) -> dict[str, Tensor]:
    """Return all control maps by name, for the arguments of :func:`random_map` and with its errors.

    Returns:
        dict[str, Tensor]: "random map", "uniform map" and "centre blob", each in the shape of the inputs.

    Example::

        >>> import torch
        >>> from captum_gmar.metrics import control_maps
        >>> {name: tuple(attributions.shape) for name, attributions in control_maps(torch.zeros(1, 3, 4, 4)).items()}
        {'random map': (1, 3, 4, 4), 'uniform map': (1, 3, 4, 4), 'centre blob': (1, 3, 4, 4)}
    """
    maps = random_map(inputs, seed, patch_size), uniform_map(inputs), centre_blob(inputs)
    return dict(zip(CONTROLS, maps, strict=True))


def _attributions(maps: Tensor, inputs: Tensor) -> Tensor:
    """Normalize maps (N, H, W) to a sum of 1 and repeat them over the inputs' channels."""
    shares = maps / (maps.sum((1, 2), keepdim=True) * inputs.shape[1])
    dtype = torch.promote_types(inputs.dtype, torch.float32)
    return shares[:, None].to(inputs.device, dtype).repeat(1, inputs.shape[1], 1, 1)
