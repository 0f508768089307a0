"""Removal that paints over: each removed pixel becomes the mean of its neighbours, and a little noise (ROAD)."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from captum_gmar.metrics._linear_system import impute
from captum_gmar.metrics.removal import PixelRemoval, check_removed, check_seed

__all__ = ["NoisyLinear"]

_TOLERANCE = (
    0.01  # about how far a pixel may be from the solution, in units of the inputs: as far as the noise moves it
)


@dataclass(frozen=True)
class NoisyLinear(PixelRemoval):
    r"""Noisy linear imputation, ROAD's removal: what is painted over shows hardly where the removed pixels were.

    Every removed pixel i becomes the weighted mean of its neighbours, removed or not,

    .. math:: x_i = \frac{\sum_j w_{ij} x_j}{\sum_j w_{ij}}

    with weight 1/6 for the four beside it and 1/12 for the four at its corners; neighbours beyond the image's border
    are left out. This linear system is solved for each channel, and normal noise is added. If nothing of an image is
    kept, its pixels become its mean colour, and noise. The system is solved as exactly as the noise lets it show.

    The noise is the same for every image of a size, whatever batch it comes in. The inside of a patch follows from the
    pixels around it, so that patches of 8 to 32 pixels cost much less than single pixels do.

    Args:
        noise: standard deviation of the noise, in units of the inputs.
            Default: 0.01
        seed: of the noise.
            Default: 0

    Raises:
        ValueError: if ``noise`` is negative, or ``seed`` not an integer.

    References:
        Rong, Leemann, Borisov, Kasneci, Kasneci: A Consistent and Efficient Evaluation Strategy for Attribution
        Methods. ICML 2022, arXiv 2202.00449.
    """

    noise: float = 0.01
    seed: int = 0

    def __post_init__(self) -> None:
        if not isinstance(self.noise, int | float) or not 0 <= self.noise < math.inf:
            raise ValueError(f"noise must be a finite number, zero or more. Got {self.noise!r} instead.")
        check_seed(self.seed)

    @property
    def name(self) -> str:
        """As reports and pictures call it."""
        return f"noisy linear imputation (noise {self.noise:g})"

    def replacement(self, inputs: Tensor, removed: Tensor) -> Tensor:
        """What stands in the place of the pixels that are removed (N, C, H, W)."""
        generator = torch.Generator().manual_seed(self.seed)
        noise = torch.randn(inputs.shape[1:], generator=generator).to(inputs)
        noise = self.noise * noise.to(torch.promote_types(noise.dtype, torch.float32))
        return impute(inputs, removed, noise, _TOLERANCE)

    def perturb(self, inputs: Tensor, removed: Tensor) -> Tensor:
        """The images (N, C, H, W) without the pixels that ``removed`` (N, H, W) marks."""
        check_removed(removed, inputs)
        return self.replacement(inputs, removed).to(inputs)  # in which kept pixels are the image's own
