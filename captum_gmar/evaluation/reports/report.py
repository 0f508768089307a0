"""``summary.md``: what was found, for people."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from captum_gmar.evaluation.catalogue import DIFFERENCE, arrow
from captum_gmar.evaluation.reports.report_text import provenance
from captum_gmar.evaluation.reports.statistics import Estimate, Quantity, Summary
from captum_gmar.evaluation.runs.batches import Skipped
from captum_gmar.evaluation.runs.progress import count
from captum_gmar.files.markdown import table
from captum_gmar.metrics._statistics import FEWEST
from captum_gmar.metrics.controls import CONTROLS

NO_DROP = (
    "A map that shows the whole image, as a uniform one does, has an average drop of 0, which is no merit: read it "
    "together with average-gain."
)
AGAINST_ZERO = {True: "better", False: "worse", None: "no difference shown"}
MEANS = "Means over the images, with 95 % bootstrap intervals."
FEW_MEANS = f"Means over the images; fewer than {FEWEST} show neither an interval nor which method is better."


class Provenance(NamedTuple):
    """How results came about."""

    model: str
    data: str
    examples: int
    target: str
    steps: int | None  # of curves, if there are any
    precision: str
    removals: Mapping[str, str]  # full names
    command: str
    versions: Mapping[str, str]
    seconds: Mapping[str, float]  # that each method took for a map, on average
    skipped: Sequence[Skipped]


def to_markdown(summaries: Sequence[Summary], run: Provenance) -> str:
    """The report.

    Args:
        summaries: of every quantity, in the order of the report.
        run: how they came about.
    """
    parts = [_head(run, any(summary.examples < FEWEST for summary in summaries))]
    headline = [summary for summary in summaries if summary.quantity.metric == DIFFERENCE]
    if len(headline) > 1:
        parts += ["## Insertion less deletion, every removal", _grid(headline, [_removal(s) for s in headline])]
    for removal, name in run.removals.items():
        summed_up = [summary for summary in summaries if summary.quantity.removal == removal]
        if summed_up:
            parts += [f"## Removal: {name}", _grid(summed_up, [_quantity_title(s.quantity) for s in summed_up])]
    others = [summary for summary in summaries if not summary.quantity.removal]
    if others:
        parts += ["## Other metrics", _grid(others, [_quantity_title(s.quantity) for s in others])]
        parts += [NO_DROP] if any(summary.quantity.metric == "average-drop" for summary in others) else []
    paired = headline or list(summaries)
    if paired:
        parts += [f"## Differences to {paired[0].methods[0]}, on the same images", _differences(paired)]
    parts += ["## Time for a map", table(["method", "milliseconds an image"], _time_rows(run.seconds))]
    if run.skipped:
        parts += ["## Left out of every method", "\n".join(f"- {skip.name}: {skip.reason}" for skip in run.skipped)]
    return "\n\n".join(parts) + "\n"


def _head(run: Provenance, has_too_few: bool) -> str:
    data = f"{run.data}, {count(run.examples)}"
    steps = f"; {count(run.steps, 'step')}" if run.steps else ""
    explained = f"{run.target}{steps}; perturbed images in {run.precision}"
    return "\n".join(
        [
            "# Evaluation",
            "",
            *provenance(run.model, data, explained, run.command, run.versions),
            "",
            f"{FEW_MEANS if has_too_few else MEANS} ↑ higher is better, ↓ lower. Maps of all methods are summed over "
            f"each patch. {', '.join(CONTROLS[:-1])} and {CONTROLS[-1]} know nothing of the model.",
        ]
    )


def _grid(summaries: Sequence[Summary], titles: Sequence[str]) -> str:
    """Methods × quantities."""
    cells = [dict(zip(summary.methods, summary.means, strict=True)) for summary in summaries]
    counts = [f"{title}, n = {summary.examples}" for title, summary in zip(titles, summaries, strict=True)]
    names = dict.fromkeys(name for summary in summaries for name in summary.methods)
    return table(
        ["method", *counts],
        ([name, *(str(column[name]) if name in column else "" for column in cells)] for name in names),
    )


def _differences(summaries: Sequence[Summary]) -> str:
    """Every method less the first one."""
    rows = (
        [name, _summary_name(summary), str(estimate), _verdict(summary.quantity, estimate)]
        for name in summaries[0].methods[1:]
        for summary in summaries
        for estimate in [summary.differences[name, summary.methods[0]]]
    )
    return table(["method", "quantity", "difference", "the method is"], rows)


def _time_rows(seconds: Mapping[str, float]) -> Iterable[Sequence[str]]:
    return ([name, f"{1000 * mean:.1f}"] for name, mean in seconds.items())


def _verdict(quantity: Quantity, estimate: Estimate) -> str:
    """Return what the interval of a difference shows, or what it cannot."""
    if estimate.low is None or estimate.high is None:
        return "not shown by so few"
    way = arrow(quantity.metric)
    is_open = estimate.low <= 0 <= estimate.high or not way
    return AGAINST_ZERO[None if is_open else (estimate.mean > 0) == (way == "↑")]


def _quantity_title(quantity: Quantity) -> str:
    return f"{quantity.metric} {arrow(quantity.metric)}".rstrip()


def _removal(summary: Summary) -> str:
    return summary.quantity.removal


def _summary_name(summary: Summary) -> str:
    """Of the quantity; the difference, of which the title tells, by its removal alone."""
    metric, removal = summary.quantity
    return removal if metric == DIFFERENCE else ", ".join(filter(None, (metric, removal)))
