"""How sure a mean is."""

import math

from torch import Tensor

ERRORS = 1.96  # standard errors on either side hold 95 % of a normal distribution


def margin(values: Tensor, dim: int = -1) -> Tensor:
    """Half the width of the 95 % interval of the mean of independent values, along a dimension; nan for one value.

    It is too narrow for a handful of them.

    >>> from torch import tensor
    >>> round(float(margin(tensor([0.0, 1.0, 2.0, 3.0]))), 3)
    1.265
    """
    return ERRORS * values.std(dim) / math.sqrt(values.shape[dim])
