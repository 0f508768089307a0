"""Means with bootstrap intervals, and paired differences of methods on the same images."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from captum_gmar.evaluation.catalogue import DIFFERENCE
from captum_gmar.evaluation.runs.journal import Result
from captum_gmar.metrics._statistics import FEWEST

RESAMPLES = 2000
INTERVAL = (2.5, 97.5)  # percent

Numbers = npt.NDArray[np.float64]


class Quantity(NamedTuple):
    """A metric, and the removal that it was measured with."""

    metric: str
    removal: str


class Estimate(NamedTuple):
    """A mean over examples with its 95 % interval, which fewer than ten examples do not have."""

    mean: float
    low: float | None
    high: float | None

    def __str__(self) -> str:
        return self.text(".3f")

    def text(self, form: str) -> str:
        """Return the mean in this format, and the interval in brackets where there is one."""
        mean = format(self.mean, form)
        return mean if self.low is None or self.high is None else f"{mean} [{self.low:{form}}, {self.high:{form}}]"


class Summary(NamedTuple):
    """Means and differences of one quantity."""

    quantity: Quantity
    methods: tuple[str, ...]
    examples: int
    means: tuple[Estimate, ...]  # of each method
    differences: dict[tuple[str, str], Estimate]  # of each pair, the first minus the second


def values_by_quantity(results: Iterable[Result]) -> dict[Quantity, dict[str, list[float]]]:
    """Return the values of every method in the order of the examples, and insertion minus deletion where both are."""
    values: dict[Quantity, dict[str, list[float]]] = {}
    for result in results:
        for row in result.rows:
            values.setdefault(Quantity(row.metric, row.removal), {}).setdefault(row.method, []).append(row.value)
    for removal in [quantity.removal for quantity in values if quantity.metric == "insertion"]:
        inserted, deleted = (values.get(Quantity(metric, removal)) for metric in ("insertion", "deletion"))
        if inserted and deleted:
            values[Quantity(DIFFERENCE, removal)] = {
                method: [high - low for high, low in zip(inserted[method], deleted[method], strict=True)]
                for method in inserted
            }
    return values


def curves_by_quantity(results: Iterable[Result]) -> dict[Quantity, dict[str, Numbers]]:
    """Return the curves of every method, (examples, points)."""
    points: dict[Quantity, dict[str, list[Any]]] = {}
    for result in results:
        for row in result.rows:
            if row.curve:
                points.setdefault(Quantity(row.metric, row.removal), {}).setdefault(row.method, []).append(row.curve)
    return {
        quantity: {name: np.array(curves) for name, curves in methods.items()} for quantity, methods in points.items()
    }


def summarise_quantity(quantity: Quantity, values: Mapping[str, Sequence[float]], seed: int = 0) -> Summary:
    r"""Return means and paired differences with percentile bootstrap intervals.

    Examples are resampled with replacement 2000 times, equally for all methods; an interval holds the middle 95 % of
    the means so made. It says how much the mean would vary with other examples of the same kind, and nothing of other
    models or data. Fewer than ten examples have no interval, as it would be too narrow.

    Efron, Tibshirani: An Introduction to the Bootstrap. 1993, chapter 13.
    """
    methods = tuple(values)
    matrix = np.array([values[method] for method in methods])  # (methods, N)
    resampled = _resample(matrix, seed)  # (resamples, methods)
    means, examples = matrix.mean(1), matrix.shape[1]
    differences = {
        (methods[i], methods[j]): _estimate(
            float((matrix[i] - matrix[j]).mean()), resampled[:, i] - resampled[:, j], examples
        )
        for i in range(len(methods))
        for j in range(len(methods))
        if i != j
    }
    estimates = tuple(_estimate(float(means[i]), resampled[:, i], examples) for i in range(len(methods)))
    return Summary(quantity, methods, examples, estimates, differences)


def order_summaries(summaries: Sequence[Summary], metrics: Sequence[str], removals: Sequence[str]) -> list[Summary]:
    """Sort by metric, then by removal, each in the order of the settings."""
    order = [*metrics, DIFFERENCE]
    return sorted(
        summaries,
        key=lambda summary: (order.index(summary.quantity.metric), ["", *removals].index(summary.quantity.removal)),
    )


def _resample(matrix: Numbers, seed: int) -> Numbers:
    examples = matrix.shape[1]
    counts = np.random.default_rng(seed).multinomial(examples, [1 / examples] * examples, size=RESAMPLES)
    means: Numbers = counts @ matrix.T / examples
    return means


def _estimate(mean: float, resampled: Numbers, examples: int) -> Estimate:
    if examples < FEWEST:
        return Estimate(mean, None, None)
    low, high = np.percentile(resampled, INTERVAL)
    return Estimate(mean, float(low), float(high))
