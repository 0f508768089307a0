"""How cost grows: the exponent of a power law through what was measured."""

from collections.abc import Sequence

import numpy as np


def fitted_exponent(sizes: Sequence[float], costs: Sequence[float]) -> float | None:
    """
    The exponent p of the power law cost = c · size^p that fits best: the slope of a straight line through the
    logarithms, by least squares.

    Args:
        sizes: what grows, above zero.
        costs: of each size. Costs that are not above zero are left out, as they have no logarithm.

    Returns:
        float, or None with fewer than three sizes left.

    Example::

        >>> from benchmarks.growth import fitted_exponent
        >>> round(fitted_exponent([1, 2, 4], [5, 20, 80]), 6)
        2.0
    """
    points = [(size, cost) for size, cost in zip(sizes, costs, strict=True) if cost > 0]
    if len(points) < 3:
        return None
    logarithms = np.log(np.array(points))
    return float(np.polyfit(logarithms[:, 0], logarithms[:, 1], 1)[0])
