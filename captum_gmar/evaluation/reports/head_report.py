"""The results of an evaluation of heads: tables, report and pictures."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from captum_gmar.ablation import HeadStatistics
from captum_gmar.evaluation.reports.evaluation_result import Report
from captum_gmar.evaluation.reports.report import Records, skipped_list
from captum_gmar.evaluation.runs.batches import Skipped
from captum_gmar.evaluation.runs.progress import count
from captum_gmar.files.markdown import table
from captum_gmar.metrics._statistics import FEWEST, spearman

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True, eq=False, repr=False)
class HeadResults(Report):
    """The result of :func:`captum_gmar.evaluate_heads`. A notebook shows it as its tables; so does ``print``."""

    model: str
    data: str
    explained: str  # class that the scores explain, in words
    statistics: Mapping[str, HeadStatistics]  # of each score, with the scores of every image
    units: Mapping[str, str]  # of the scores
    images: tuple[str, ...]  # names, in the order of the statistics' examples
    skipped: tuple[Skipped, ...] = ()  # images that had to be left out, each with **name** and **reason**
    provenance: tuple[str, ...] = ()  # lines on the origin of the results

    def records(self) -> Records:
        """Return rows for ``pandas.DataFrame``: those of :meth:`HeadStatistics.records` with the key score."""
        return [{"score": name, **row} for name, statistics in self.statistics.items() for row in statistics.records()]

    def to_markdown(self) -> str:
        """Return the whole report: a table of layers and heads for each score, and how they agree."""
        parts = ["# Attention heads", "\n".join(self.provenance), self.tables()]
        if len(self.statistics) > 1:
            parts += ["## Do the scores agree? Spearman's rank correlation over all heads", _agreement(self.statistics)]
        if self.skipped:
            parts += ["## Left out", skipped_list(self.skipped)]
        return "\n\n".join(parts) + "\n"

    def tables(self) -> str:
        """Return a Markdown table of layers and heads for each score."""
        parts = []
        for name, statistics in self.statistics.items():
            has_spread = statistics.examples >= FEWEST
            text, cell = (" ± standard deviation over the images", "{:.3g} ± {:.2g}") if has_spread else ("", "{:.3g}")
            names = ["layer", *(f"head {head}" for head in range(statistics.mean.shape[1]))]
            layers = enumerate(zip(statistics.mean.tolist(), statistics.std.tolist(), strict=True))
            rows = [[str(layer), *map(cell.format, *each)] for layer, each in layers]
            parts += [f"## {name}, {self.units[name]}{text}", _missing_spread(statistics), table(names, rows)]
        return "\n\n".join(filter(None, parts))

    def visualize(self, *, title: str | None = None, use_pyplot: bool = True) -> "tuple[Figure, list[Axes]]":
        """Plot the mean of each score, a panel of layers and heads, with its standard deviation over the images.

        ``title`` stands in place of the names of model and data; with ``use_pyplot`` pyplot makes and shows the figure.
        """
        from captum_gmar.visualization._panels import draw_title, make_figure, show
        from captum_gmar.visualization.heads import CELL_WIDTH, SPREAD_HEIGHT, visualize_head_importance

        layers, heads = next(iter(self.statistics.values())).mean.shape
        columns = min(len(self.statistics), 2)
        rows = ceil(len(self.statistics) / columns)
        width, height = max(heads * CELL_WIDTH, 3.6) + 0.8, max(layers * SPREAD_HEIGHT, 2.4) + 1.6  # with names
        figure = make_figure(columns * width, rows * height + 0.5, use_pyplot, pad=0.1)
        panels = [figure.add_subplot(rows, columns, number + 1) for number in range(len(self.statistics))]
        for panel, (name, scores) in zip(panels, self.statistics.items(), strict=True):
            options: dict[str, Any] = {"spread": scores.std if scores.examples >= FEWEST else None}
            options |= {"label": self.units[name], "plt_fig_axis": (figure, panel), "use_pyplot": False}
            visualize_head_importance(scores.mean, **options)
            panel.set_title("\n".join(filter(None, [name, _missing_spread(scores)])), fontsize="medium")
        names = f"{Path(self.model).name}, {Path(self.data).name}"  # without their folders
        draw_title(figure, title or f"{names}: heads, {count(len(self.images))}")
        show(figure, use_pyplot)
        return figure, panels


def write_heads(results: HeadResults, folder: Path) -> None:
    """Write tables, the picture and, last, the report. Other tables of an earlier report are removed."""
    from captum_gmar.evaluation.reports.report_files import write_tables
    from captum_gmar.files.writing import save_picture, write_text

    write_tables(folder, {"heads": results.records(), "skipped": [skip._asdict() for skip in results.skipped]})
    save_picture(results.visualize(use_pyplot=False)[0], folder / "heads.png")
    write_text(folder / "heads.md", results.to_markdown())


def _missing_spread(statistics: HeadStatistics) -> str:
    """Return why the mean of several images has no ±; nothing where it has, and of one image."""
    examples = statistics.examples
    return f"Mean of {examples} images; fewer than {FEWEST} show no spread." if 1 < examples < FEWEST else ""


def _agreement(statistics: Mapping[str, HeadStatistics]) -> str:
    means = torch.stack([score.mean.flatten() for score in statistics.values()])
    rows = zip(statistics, (spearman(mean.expand_as(means), means).tolist() for mean in means), strict=True)
    return table(["", *statistics], ([name, *map("{:.2f}".format, values)] for name, values in rows))
