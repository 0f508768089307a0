"""Completeness: the difference between a map's sum and the output."""

import torch
from torch import Tensor

from captum_gmar.metrics._inputs import check_attributions

__all__ = ["completeness_error"]


def completeness_error(attributions: Tensor, outputs: Tensor) -> Tensor:
    r"""Compute the relative difference between a map's sum and the output that it explains.

    .. math:: \frac{\bigl| \sum_i r_i - y \bigr|}{|y|}

    A complete map has an error of 0. A map in other units, such as one that sums to 1, has an error near 1 or above.
    Relevance assigned to biases, prefix tokens or a baseline counts as error, so the error does not rank methods.

    Args:
        attributions (Tensor): Attributions (N, channels, height, width).
        outputs (Tensor): The target's logits (N,).

    Returns:
        Tensor (N,), 0 or more. Where the output is 0, the error is 0 for a zero sum and 1 otherwise.

    Raises:
        TypeError: if an argument is not a tensor.
        ValueError: if shapes do not fit, or a number is not finite.

    Example::

        >>> import torch
        >>> from captum_gmar.metrics import completeness_error
        >>> completeness_error(torch.tensor([[[[3.0, -1.0]]]]), torch.tensor([4.0]))
        tensor([0.5000])
    """
    maps = check_attributions(attributions)
    if not isinstance(outputs, Tensor):
        raise TypeError(f"outputs must be a tensor (examples,), but got {type(outputs).__name__}.")
    if outputs.shape != (len(maps),) or not outputs.isfinite().all():
        raise ValueError(f"outputs must be a finite number for each of {len(maps)} maps, but got {outputs.tolist()}.")
    sums, explained = maps.flatten(1).sum(1), outputs.detach().to(maps)
    error = (sums - explained).abs()
    return torch.where(explained == 0, (error > 0).to(error), error / explained.abs())
