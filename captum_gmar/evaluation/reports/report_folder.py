"""The tables, plots and report of an evaluation as files."""

from pathlib import Path

from matplotlib.figure import Figure

from captum_gmar.evaluation.catalogue import DIFFERENCE
from captum_gmar.evaluation.reports.evaluation_result import Evaluation
from captum_gmar.evaluation.reports.plots import draw_estimates, ranked
from captum_gmar.evaluation.reports.tables import write_records, write_skipped
from captum_gmar.evaluation.runs.folder import replacing_report
from captum_gmar.files.writing import DOTS_PER_INCH, write_text
from captum_gmar.visualization import visualize_perturbation_curves

SUMMARY = "summary.md"
REPORT = (SUMMARY, "summary.csv", "differences.csv", "examples.csv", "curves.csv", "skipped.csv", "plots")


def write_report(folder: Path, evaluation: Evaluation) -> None:
    """
    Puts tables, plots and summary in place, all of them together.

    Raises:
        OSError: if they cannot be written; those before still stand.
    """
    with replacing_report(folder, REPORT) as new:
        write_records(new / "examples.csv", evaluation.records())
        write_records(new / "summary.csv", evaluation.means())
        write_records(new / "differences.csv", evaluation.differences())
        write_records(new / "curves.csv", evaluation.mean_curves())
        write_skipped(new / "skipped.csv", evaluation.skipped)
        _write_plots(new / "plots", evaluation)
        write_text(new / SUMMARY, evaluation.to_markdown())


def _write_plots(folder: Path, evaluation: Evaluation) -> None:
    """The curves of each removal, and the means with their intervals."""
    folder.mkdir()
    for removal in evaluation.removals:
        both = [evaluation.curves(metric, removal) for metric in ("insertion", "deletion")]
        if any(both):
            _save(visualize_perturbation_curves(*both, use_pyplot=False)[0], folder / f"curves-{removal}.png")
    summaries = evaluation.summaries
    headline = [summary for summary in summaries if summary.quantity.metric == DIFFERENCE]
    gains = [summary for summary in summaries if summary.quantity.metric in ("srg", "srg-probability")]
    others = [summary for summary in summaries if not summary.quantity.removal]
    for name, drawn in (("insertion-deletion", headline), ("relevance-gain", gains), ("other-metrics", others)):
        if drawn:
            _save(draw_estimates(drawn, ranked(summaries), use_pyplot=False)[0], folder / f"{name}.png")


def _save(figure: Figure, path: Path) -> None:
    figure.savefig(path, format="png", dpi=DOTS_PER_INCH)
