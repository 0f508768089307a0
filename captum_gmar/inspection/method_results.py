"""What is measured of one method on one image."""

from typing import NamedTuple

from torch import Tensor

from captum_gmar.metrics import PerturbationCurve
from captum_gmar.visualization._style import milliseconds_text


class Cost(NamedTuple):
    """What one map takes. The runs of all methods take turns, so that a busy moment meets all alike."""

    seconds: float  # the median of its runs
    lowest_seconds: float  # the quickest and the slowest of them
    highest_seconds: float
    forward_seconds: float  # the median of forward passes without gradient, one before every run of every method
    forward_passes: int | None  # images through the model; None where the method cannot be watched
    backward_passes: int | None  # of these, how many a gradient came back for

    @property
    def ratio(self) -> float:
        """Time in multiples of a forward pass."""
        return self.seconds / self.forward_seconds


class Convergence(NamedTuple):
    """How far integrated gradients are from summing to what they should."""

    delta: float  # the sum of the attributions less the difference
    difference: float  # of the target's output for the image and for the baseline, zero


class MethodResult(NamedTuple):
    """One method's map of an image, how faithful it is, and what it costs."""

    name: str
    relevance: Tensor  # (rows, columns)
    insertion: PerturbationCurve
    deletion: PerturbationCurve
    cost: Cost | None  # None for controls
    convergence: Convergence | None  # of integrated gradients

    @property
    def areas(self) -> tuple[float, float, float]:
        """Under the curves of insertion and deletion, and the first less the second."""
        inserted, deleted = float(self.insertion.auc), float(self.deletion.auc)
        return inserted, deleted, inserted - deleted


def time_text(cost: Cost) -> str:
    """Return milliseconds, and in brackets the quickest and the slowest run where they differ."""
    spread = f" ({milliseconds_text(cost.lowest_seconds)}–{milliseconds_text(cost.highest_seconds)})"
    return milliseconds_text(cost.seconds) + (spread if cost.lowest_seconds < cost.highest_seconds else "")
