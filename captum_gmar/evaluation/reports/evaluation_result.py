"""What comes of an evaluation: numbers, and the tables and pictures of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch

from captum_gmar.evaluation.reports.report import Provenance, to_markdown
from captum_gmar.evaluation.reports.statistics import Quantity, Summary, curves, in_order, summarise, tables
from captum_gmar.evaluation.reports.tables import Records
from captum_gmar.evaluation.runs.batches import Skipped
from captum_gmar.evaluation.runs.example_results import Result
from captum_gmar.metrics import PerturbationCurve

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What :func:`captum_gmar.evaluate` returns. A notebook shows it as its tables; so does ``print``.

    Attributes:
        results: What was measured of every image, in the order of the data.
        names: Of the images measured, as the data has them.
        labels: Of the images measured, as the data has them; None where there is none.
        skipped: Images that were left out of everything, and why.
        metrics: Names, in the order of the tables.
        removals: From the name of each way of removal to how it was done.
        seconds: That each method took for a map, on average.
        seed: Of everything that was drawn.
        provenance: How the results came about.
    """

    results: Sequence[Result]
    names: Sequence[str]
    labels: Sequence[str | None]
    skipped: Sequence[Skipped]
    metrics: Sequence[str]
    removals: Mapping[str, str]
    seconds: Mapping[str, float]
    seed: int
    provenance: Provenance

    @cached_property
    def values(self) -> Mapping[Quantity, Mapping[str, Sequence[float]]]:
        """From metric and removal, and from the name of each method, to the values of all images."""
        return tables(self.results)

    @cached_property
    def summaries(self) -> Sequence[Summary]:
        """Of every metric and removal, the means of all methods with their intervals, and their paired differences."""
        summaries = [summarise(quantity, by_method, self.seed) for quantity, by_method in self.values.items()]
        return in_order(summaries, self.metrics, list(self.removals))

    def records(self) -> Records:
        """A row for every image, method, metric and removal: ``pandas.DataFrame(evaluation.records())``."""
        return [
            {
                **{"example": result.number, "path": name, "label": label or "", "target": result.target},
                **{"method": row.method, "metric": row.metric, "removal": row.removal, "value": row.value},
            }
            for result, name, label in zip(self.results, self.names, self.labels, strict=True)
            for row in result.rows
        ]

    def means(self) -> Records:
        """A row for every metric, removal and method: the mean over the images, and its 95 % bootstrap interval.

        ``low`` and ``high`` are None of fewer than ten images.
        """
        return [
            {**summary.quantity._asdict(), "method": method, "examples": summary.examples, **estimate._asdict()}
            for summary in self.summaries
            for method, estimate in zip(summary.methods, summary.means, strict=True)
        ]

    def differences(self) -> Records:
        """A row for every metric, removal and two methods: the mean of their differences on the same images."""
        return [
            {
                **summary.quantity._asdict(),
                **{"method": pair[0], "other": pair[1], "examples": summary.examples, "difference": estimate.mean},
                **{"low": estimate.low, "high": estimate.high},
            }
            for summary in self.summaries
            for pair, estimate in summary.differences.items()
            if summary.methods.index(pair[0]) < summary.methods.index(pair[1])
        ]

    def mean_curves(self) -> Records:
        """A row for every curve, method and share of the patches: the mean of what was followed."""
        return [
            {**quantity._asdict(), "method": method, "share": float(share), "mean": float(mean)}
            for quantity, by_method in curves(self.results).items()
            for method, points in by_method.items()
            for share, mean in zip(np.linspace(0, 1, points.shape[1]), points.mean(0), strict=True)
        ]

    def curves(self, metric: str, removal: str) -> dict[str, PerturbationCurve]:
        """
        The curves of every method, as :func:`captum_gmar.visualize_perturbation_curves` takes them.

        Args:
            metric (str): "insertion" or "deletion", or another that is the area under a curve.
            removal (str): Name of a way of removal.

        Returns:
            dict: From name to curves of all images; empty if that was not measured.
        """
        quantity = Quantity(metric, removal)
        return {
            method: PerturbationCurve(
                torch.tensor(self.values[quantity][method]),
                torch.from_numpy(points),
                torch.linspace(0, 1, points.shape[1]),
                self.removals[removal],
            )
            for method, points in curves(self.results).get(quantity, {}).items()
        }

    def to_markdown(self) -> str:
        """The report: means with their intervals, differences to the first method, times, and what was left out."""
        return to_markdown(self.summaries, self.provenance)

    def visualize(self, *, use_pyplot: bool = True) -> "tuple[Figure, list[Axes]]":
        """
        Draws the mean of every method with its interval, a panel for each metric and removal.

        Args:
            use_pyplot (bool, optional): As in Captum: whether to make the figure with pyplot and show it.
                Default: True

        Returns:
            2-element tuple of **figure**, **axes**:
            - **figure** (*matplotlib.figure.Figure*)
            - **axes** (*list of matplotlib.axes.Axes*): one for each metric and removal.
        """
        from captum_gmar.evaluation.reports.plots import draw_estimates, ranked

        return draw_estimates(self.summaries, ranked(self.summaries), use_pyplot=use_pyplot)

    def __repr__(self) -> str:
        return self.to_markdown()

    def _repr_markdown_(self) -> str:
        return self.to_markdown()
