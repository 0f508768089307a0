"""Metrics of what a model gives as patches leave images or come back: of which curves each is made, and how.

All that are asked for are read from one set of passes, see :func:`captum_gmar.metrics.curves.follow`.
"""

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple, TypeAlias

from torch import Tensor

from captum_gmar.metrics import PerturbationCurve, area_over_curve
from captum_gmar.metrics._outputs import LOGIT, predicted_classes, target_output
from captum_gmar.metrics.curves import BROUGHT_BACK, LEAST_FIRST, MOST_FIRST, Course, FollowedCurves, Readout
from captum_gmar.metrics.relevance_gain import changes

What: TypeAlias = Literal["probability", "logit", "class"]
"""What is followed: of the target, but for the class, which is the predicted one."""


class CurveMetric(NamedTuple):
    """A metric and what it is made of."""

    courses: tuple[Course, ...]
    follows: What
    make: Callable[..., PerturbationCurve | Tensor]  # of the curves of the courses: a curve, or values (N,)
    is_contrast: bool = False  # less the same of the map for another class

    def measure(self, passes: FollowedCurves, readings: "Readings") -> tuple[Tensor, Tensor | None]:
        """The values (N,), and the curves (N, steps + 1) of which these are the areas, if they are.

        Args:
            passes: of one map.
            readings: of those that were followed, by what they follow.
        """
        made = self.make(*(passes.curve(course, readings[self.follows]) for course in self.courses))
        return (made.auc, made.curve) if isinstance(made, PerturbationCurve) else (made, None)


Readings: TypeAlias = dict[What, Readout]


def readings(probabilities: Callable[[Tensor], Tensor]) -> Readings:
    """Of the logits of a model, which become probabilities by this function."""

    def probability(outputs: Tensor, indices: Tensor | None, examples: int) -> Tensor:
        return target_output(probabilities(outputs), indices, examples, softmax=False)

    return {"probability": probability, "logit": LOGIT, "class": predicted_classes}


def courses_of(metrics: Sequence[CurveMetric]) -> list[Course]:
    """All that these need, each once."""
    return list(dict.fromkeys(course for metric in metrics for course in metric.courses))


def _whole_curve(curve: PerturbationCurve) -> PerturbationCurve:
    return curve


def _gain(least_first: PerturbationCurve, most_first: PerturbationCurve) -> Tensor:
    return least_first.auc - most_first.auc


INSERTION = CurveMetric((BROUGHT_BACK,), "probability", _whole_curve)
DELETION = CurveMetric((MOST_FIRST,), "probability", _whole_curve)
SRG = CurveMetric((LEAST_FIRST, MOST_FIRST), "logit", _gain)
SRG_PROBABILITY = CurveMetric((LEAST_FIRST, MOST_FIRST), "probability", _gain)
MIF = CurveMetric((MOST_FIRST,), "logit", _whole_curve)
LIF = CurveMetric((LEAST_FIRST,), "logit", _whole_curve)
MIF_ACCURACY = CurveMetric((MOST_FIRST,), "class", changes)
LIF_ACCURACY = CurveMetric((LEAST_FIRST,), "class", changes)
CLASS_GAIN = SRG._replace(is_contrast=True)
AOPC = CurveMetric((MOST_FIRST,), "probability", area_over_curve)
