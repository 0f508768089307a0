"""The result of an evaluation."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from captum_gmar.evaluation.reports.report import Provenance, Records, Tables
from captum_gmar.evaluation.reports.statistics import Quantity
from captum_gmar.evaluation.runs.batches import Skipped
from captum_gmar.evaluation.runs.journal import Result
from captum_gmar.metrics import PerturbationCurve

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


class Report:
    """A result that notebooks and ``print`` show as its report."""

    def to_markdown(self) -> str:
        """Return the report."""
        raise NotImplementedError

    def __repr__(self) -> str:
        return self.to_markdown()

    _repr_markdown_ = __repr__


@dataclass(frozen=True, eq=False, repr=False)
class Evaluation(Report):
    """The result of :func:`captum_gmar.evaluate`. A notebook shows it as its tables; so does ``print``."""

    results: Sequence[Result]  # measurements of every image, in the order of the data
    provenance: Provenance
    tables: Tables

    @property
    def skipped(self) -> Sequence[Skipped]:
        """Images that were left out of everything, and why."""
        return self.provenance.skipped

    def records(self) -> Records:
        """Return a row for every image, method, metric and removal: ``pandas.DataFrame(evaluation.records())``."""
        return self.tables.records["examples"]

    def means(self) -> Records:
        """Return a row for every metric, removal and method: the mean over the images with its 95 % interval."""
        return self.tables.records["summary"]

    def differences(self) -> Records:
        """Return a row for every metric, removal and two methods: the mean of their differences on the same images."""
        return self.tables.records["differences"]

    def curves(self, metric: str, removal: str) -> Mapping[str, PerturbationCurve]:
        """Return the curves of every method for :func:`captum_gmar.visualization.visualize_perturbation_curves`.

        ``metric`` is "insertion", "deletion" or another that is the area under a curve. Without measurements there are
        none.
        """
        return self.tables.curves.get(Quantity(metric, removal), {})

    def to_markdown(self) -> str:
        """Return the report: means with their intervals, differences to the first method, times, and skipped images."""
        return self.tables.report

    def visualize(self, *, use_pyplot: bool = True) -> "tuple[Figure, list[Axes]]":
        """Plot the mean of every method with its interval; return the figure and a panel for each metric and removal.

        With ``use_pyplot`` pyplot makes and shows the figure.
        """
        from captum_gmar.evaluation.reports.report_files import plot_means

        return plot_means(self.tables.summaries, self.tables.summaries, use_pyplot=use_pyplot)
