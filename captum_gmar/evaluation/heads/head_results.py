"""What comes of evaluating heads: scores, predictions without heads, and the tables and pictures of them."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from captum_gmar.ablation import HeadAblationCurve, HeadStatistics
from captum_gmar.evaluation.heads.head_report import ablation_section, heads_report, importance_tables
from captum_gmar.evaluation.reports.tables import Records
from captum_gmar.evaluation.runs.batches import Skipped
from captum_gmar.evaluation.runs.progress import count

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True, eq=False)
class AblationResult:
    """Predictions as heads are silenced in the order of each score, on other images than those that ranked them.

    Attributes:
        curves: From (score, which heads go first), "least" or "most", and from ("random", "random"), what
            :func:`captum_gmar.ablation.head_ablation_curve` returns; that of the random orders holds all of them.
        ranked_by: How many images gave the scores that heads are ranked by.
        images: The names of the others, which predictions were made for, in the order of the curves' examples.
        title: What pictures are called.
    """

    curves: Mapping[tuple[str, str], HeadAblationCurve]
    ranked_by: int
    images: tuple[str, ...]
    title: str = ""

    def records(self) -> Records:
        """Rows for ``pandas.DataFrame``: those of :meth:`HeadAblationCurve.records` with the keys score and first."""
        return [
            {"score": score, "first": first, **row}
            for (score, first), curve in self.curves.items()
            for row in curve.records()
        ]

    def to_markdown(self) -> str:
        """The areas below the curves, with intervals, and their differences from those of random orders."""
        return ablation_section(self.curves, self.ranked_by)

    def visualize(self, *, title: str | None = None, use_pyplot: bool = True) -> "tuple[Figure, list[Axes]]":
        """
        Draws what becomes of accuracy, probability and logit as heads are silenced, a panel for each.

        Args:
            title (str, optional): Above the whole.
                Default: None, the names of model and data
            use_pyplot (bool, optional): As in Captum: whether to make the figure with pyplot and show it.
                Default: True

        Returns:
            2-element tuple of **figure**, **axes**:
            - **figure** (*matplotlib.figure.Figure*)
            - **axes** (*list of matplotlib.axes.Axes*): of accuracy, probability and logit.
        """
        from captum_gmar.evaluation.heads.head_pictures import draw_ablation

        return draw_ablation(self.curves, title or self.title, use_pyplot)

    def __repr__(self) -> str:
        return self.to_markdown()

    def _repr_markdown_(self) -> str:
        return self.to_markdown()


@dataclass(frozen=True, eq=False)
class HeadResults:
    """What :func:`captum_gmar.evaluate_heads` returns. A notebook shows it as its tables; so does ``print``.

    Attributes:
        model: Name of the model.
        data: Name of the data.
        explained: Which class the scores explain, in words.
        statistics: From the name of each score to its :class:`captum_gmar.ablation.HeadStatistics`, which hold the
            scores of every image, and rank heads.
        units: Of the scores, by name.
        images: The names of the images, in the order of the statistics' examples.
        ablation: Predictions without heads, where asked for.
        skipped: The images that had to be left out, each with **name** and **reason**.
        provenance: Lines that say how the results came about.
    """

    model: str
    data: str
    explained: str
    statistics: Mapping[str, HeadStatistics]
    units: Mapping[str, str]
    images: tuple[str, ...]
    ablation: AblationResult | None = None
    skipped: tuple[Skipped, ...] = ()
    provenance: tuple[str, ...] = ()

    def records(self) -> Records:
        """Rows for ``pandas.DataFrame``: those of :meth:`HeadStatistics.records` with the key score."""
        return [{"score": name, **row} for name, statistics in self.statistics.items() for row in statistics.records()]

    def to_markdown(self) -> str:
        """The whole report: a table of layers and heads for each score, how they agree, and the ablation."""
        ablation = self.ablation.to_markdown() if self.ablation else None
        return heads_report(self.statistics, self.units, self.provenance, ablation, self.skipped)

    def tables(self) -> str:
        """A Markdown table of layers and heads for each score."""
        return importance_tables(self.statistics, self.units)

    def visualize(self, *, title: str | None = None, use_pyplot: bool = True) -> "tuple[Figure, list[Axes]]":
        """
        Draws the mean of each score, a panel of layers and heads, with its standard deviation over the images.

        Args:
            title (str, optional): Above the whole.
                Default: None, the names of model and data, and how many images
            use_pyplot (bool, optional): As in Captum: whether to make the figure with pyplot and show it.
                Default: True

        Returns:
            2-element tuple of **figure**, **axes**:
            - **figure** (*matplotlib.figure.Figure*)
            - **axes** (*list of matplotlib.axes.Axes*): of each score.
        """
        from captum_gmar.evaluation.heads.head_pictures import draw_importance

        return draw_importance(self.statistics, self.units, title or self.title, use_pyplot)

    @property
    def title(self) -> str:
        """What pictures are called: model, data and how many images."""
        return f"{title_of(self.model, self.data)}: heads, {count(len(self.images))}"

    def __repr__(self) -> str:
        return self.to_markdown()

    def _repr_markdown_(self) -> str:
        return self.to_markdown()


def title_of(model: str, data: str) -> str:
    """What pictures say of model and data: names without their folders."""
    return f"{Path(model).name}, {Path(data).name}"
