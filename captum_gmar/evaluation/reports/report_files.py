"""The files of an evaluation: tables, plots and report, written one by one, each as a whole."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from captum_gmar.evaluation.catalogue import DIFFERENCE, arrow
from captum_gmar.evaluation.reports.report import Records, Tables
from captum_gmar.evaluation.reports.statistics import Quantity, Summary
from captum_gmar.files.writing import DOTS_PER_INCH, atomic_write, write_csv, write_text
from captum_gmar.metrics._statistics import FEWEST
from captum_gmar.metrics.controls import CONTROLS
from captum_gmar.visualization import visualize_perturbation_curves
from captum_gmar.visualization._panels import make_figure, show
from captum_gmar.visualization._style import BLUE, GREY, number_text

SUMMARY = "summary.md"
CITATIONS = "figures.bib"
PLOTS = "plots"
DIGITS = ".9g"  # of a float32
ROW_INCHES, COLUMN_INCHES, NAME_INCHES = 0.24, 2.4, 2.2


def write(tables: Tables, folder: Path) -> None:
    """Write tables, plots and, last, the summary. Other files of an earlier report are removed."""
    write_tables(folder, tables.records)
    (folder / PLOTS).mkdir(exist_ok=True)
    plots = dict(_plots(tables))
    for path in (folder / PLOTS).glob("*.png"):
        if path.name not in plots:
            path.unlink()
    for name, plot in plots.items():
        with atomic_write(folder / PLOTS / name) as temporary:
            plot()[0].savefig(temporary, format="png", dpi=DOTS_PER_INCH)
    write_text(folder / CITATIONS, tables.citations)
    write_text(folder / SUMMARY, tables.report)


def write_tables(folder: Path, tables: Mapping[str, Records]) -> None:
    """Write a CSV file for each table that has rows, and remove those of the others."""
    for name, records in tables.items():
        path = folder / f"{name}.csv"
        if records:
            write_csv(path, list(records[0]), (list(map(_cell, record.values())) for record in records))
        else:
            path.unlink(missing_ok=True)


def plot_means(
    summaries: Sequence[Summary], ranking: Sequence[Summary], *, use_pyplot: bool
) -> tuple[Figure, list[Axes]]:
    """Plot the mean of each method with its interval, a panel for each quantity, methods in the ranking's order."""
    methods = rank_methods(ranking)
    width = NAME_INCHES + COLUMN_INCHES * len(summaries)
    figure = make_figure(width, 1 + ROW_INCHES * len(methods), use_pyplot=use_pyplot)
    panels: Any = figure.subplots(1, len(summaries), sharey=True, squeeze=False)
    for panel, summary in zip(panels[0], summaries, strict=True):
        _plot_summary(panel, summary, methods)
    show(figure, use_pyplot)
    return figure, list(panels[0])


def rank_methods(summaries: Sequence[Summary]) -> list[str]:
    """Return the methods by their means of the headline, lowest first."""
    headlines = ([s for s in summaries if s.quantity.metric == metric] for metric in (DIFFERENCE, "srg"))
    others = [summary for summary in summaries if not summary.quantity.removal]
    first = next(filter(None, [*headlines, others, summaries]))[0]
    return [name for _, name in sorted(zip(first.means, first.methods, strict=True))]


def _plots(tables: Tables) -> Iterator[tuple[str, Callable[[], tuple[Figure, Any]]]]:
    """Yield name and maker of each plot: the curves of each removal, and the means with their intervals."""
    for removal in dict.fromkeys(quantity.removal for quantity in tables.curves):
        both = [tables.curves.get(Quantity(metric, removal), {}) for metric in ("insertion", "deletion")]
        if any(both):
            yield f"curves-{removal}.png", partial(visualize_perturbation_curves, *both, use_pyplot=False)
    groups: dict[str, list[Summary]] = {"insertion-deletion": [], "relevance-gain": [], "other-metrics": []}
    for summary in tables.summaries:
        metric, removal = summary.quantity
        headline = "insertion-deletion" if metric == DIFFERENCE else "relevance-gain"
        if not removal or metric in (DIFFERENCE, "srg", "srg-probability"):
            groups[headline if removal else "other-metrics"].append(summary)
    for name, group in groups.items():
        if group:
            yield f"{name}.png", partial(plot_means, group, tables.summaries, use_pyplot=False)


def _plot_summary(panel: Axes, summary: Summary, methods: Sequence[str]) -> None:
    means = dict(zip(summary.methods, summary.means, strict=True))
    for height, name in enumerate(methods):
        colour = GREY if name in CONTROLS else BLUE
        estimate = means[name]
        if estimate.low is not None and estimate.high is not None:
            panel.plot([estimate.low, estimate.high], [height, height], color=colour, linewidth=1.5)
        panel.plot(estimate.mean, height, "o", color=colour, markersize=4)
    panel.set_yticks(range(len(methods)), methods)
    metric, removal = summary.quantity
    panel.set_title(f"{metric} {arrow(metric)}\n{removal}".rstrip(), fontsize="medium")
    shown = "mean, too few for an interval" if summary.examples < FEWEST else "mean, 95 % interval"
    panel.set_xlabel(f"{shown}, n = {summary.examples}", fontsize="small")
    panel.xaxis.set_major_locator(MaxNLocator(4))
    panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: number_text(value, ".4g")))
    panel.grid(axis="x", alpha=0.3)


def _cell(value: object) -> object:
    if value != value:  # NaN: there is no number
        return None
    return format(value, DIGITS) if isinstance(value, float) else value
