"""Whether a map sums to what it explains."""

import torch
from torch import Tensor

from captum_gmar.metrics._inputs import check_attributions

__all__ = ["completeness_error"]


def completeness_error(attributions: Tensor, outputs: Tensor) -> Tensor:
    r"""
    How far the sum of a map is from the output that it explains, as a share of that output.

    .. math:: \frac{\bigl| \sum_i r_i - y \bigr|}{|y|}

    Zero for a map that is complete. A map in other units than the output, such as one that is scaled to sum to 1, has
    an error near 1 or beyond, and what a map leaves to biases, to prefix tokens or to a baseline is its error: this
    says what a map is, not how good it is.

    Args:
        attributions (Tensor): (N, channels, height, width).
        outputs (Tensor): (N,) what the model gives for the target: its logit.

    Returns:
        Tensor (N,), zero or more. Where the output is zero, 0 if the sum is zero too and else 1.

    Raises:
        TypeError: if an argument is no tensor.
        ValueError: if shapes do not fit, or a number is not finite.

    Example::

        >>> import torch
        >>> from captum_gmar.metrics import completeness_error
        >>> completeness_error(torch.tensor([[[[3.0, -1.0]]]]), torch.tensor([4.0]))
        tensor([0.5000])
    """
    maps = check_attributions(attributions)
    if not isinstance(outputs, Tensor):
        raise TypeError(f"outputs must be a tensor (examples,). Got {type(outputs).__name__} instead.")
    if outputs.shape != (len(maps),) or not outputs.isfinite().all():
        raise ValueError(
            f"outputs must be a finite number for each of {len(maps)} examples. Got {outputs.tolist()} instead."
        )
    sums, explained = maps.flatten(1).sum(1), outputs.detach().to(maps)
    error = (sums - explained).abs()
    return torch.where(explained == 0, (error > 0).to(error), error / explained.abs())
