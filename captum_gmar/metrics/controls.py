"""Maps that know nothing of the model, and so what any method must beat: a table without them says little."""

import torch
from torch import Tensor

from captum_gmar.metrics._inputs import PatchSize, check_images, check_patch_size
from captum_gmar.metrics.removal import check_seed

__all__ = ["centre_blob", "control_maps", "random_map", "uniform_map"]

CONTROLS = ("random map", "uniform map", "centre blob")  # as tables name them


def random_map(inputs: Tensor, seed: int = 0, patch_size: PatchSize = None) -> Tensor:
    """
    Uniformly distributed attributions, drawn for each patch.

    Example i is drawn from seed + i alone: pass the number of the first example as the seed, and a data set gets the
    same maps in whatever batches it comes.

    Args:
        inputs (Tensor): Images (N, channels, height, width).
        seed (int, optional): Of the first example.
            Default: 0
        patch_size (int or tuple[int, int], optional): Height and width of the patches that have one value each. None
            draws for each pixel.
            Default: None

    Returns:
        Tensor: Attributions in the shape of the inputs, zero or more, summing to 1 over each image.

    Raises:
        TypeError: if ``inputs`` is no tensor, or ``patch_size`` no integers.
        ValueError: if ``inputs`` are no images, ``seed`` is no integer, or ``patch_size`` does not divide the images.
    """
    check_images(inputs)
    check_seed(seed)
    height, width = check_patch_size(patch_size, *inputs.shape[2:])
    grid = inputs.shape[2] // height, inputs.shape[3] // width
    generators = [torch.Generator().manual_seed(seed + example) for example in range(len(inputs))]
    maps = torch.stack([torch.rand(grid, generator=generator) for generator in generators])
    return _attributions(maps.repeat_interleave(height, 1).repeat_interleave(width, 2), inputs)


def uniform_map(inputs: Tensor) -> Tensor:
    """
    The same attribution for every pixel.

    Args:
        inputs (Tensor): Images (N, channels, height, width).

    Returns:
        Tensor: Attributions in the shape of the inputs, summing to 1 over each image. An order made of them is random.

    Raises:
        TypeError: if ``inputs`` is no tensor.
        ValueError: if ``inputs`` are no images.
    """
    check_images(inputs)
    return _attributions(torch.ones(len(inputs), *inputs.shape[2:]), inputs)


def centre_blob(inputs: Tensor) -> Tensor:
    r"""
    A Gaussian blob in the middle of the image, where photographers put their objects.

    .. math:: e^{-(u^2 + v^2) / (2 \cdot 0.5^2)}

    where u and v run from -1 to 1 across the image.

    Args:
        inputs (Tensor): Images (N, channels, height, width).

    Returns:
        Tensor: Attributions in the shape of the inputs, positive, summing to 1 over each image.

    Raises:
        TypeError: if ``inputs`` is no tensor.
        ValueError: if ``inputs`` are no images.
    """
    check_images(inputs)
    vertical, horizontal = ((torch.arange(size) * 2 + 1) / size - 1 for size in inputs.shape[2:])  # at pixels' centres
    blob = torch.exp(-(vertical[:, None] ** 2 + horizontal**2) / (2 * 0.5**2))
    return _attributions(blob.expand(len(inputs), -1, -1), inputs)


def control_maps(inputs: Tensor, seed: int = 0, patch_size: PatchSize = None) -> dict[str, Tensor]:
    """
    All controls, by the names that tables give them.

    Takes what :func:`random_map` takes and raises what it raises.

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
    """Maps (N, H, W), each divided by its sum, over the channels of the inputs; at least in single precision."""
    shares = maps / (maps.sum((1, 2), keepdim=True) * inputs.shape[1])
    dtype = torch.promote_types(inputs.dtype, torch.float32)
    return shares[:, None].to(inputs.device, dtype).repeat(1, inputs.shape[1], 1, 1)
