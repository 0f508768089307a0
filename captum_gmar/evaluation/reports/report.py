"""Tables of results and the text of ``summary.md``."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch

from captum_gmar.attr.papers import cite_methods
from captum_gmar.evaluation.catalogue import DIFFERENCE, arrow
from captum_gmar.evaluation.data.example import Example
from captum_gmar.evaluation.reports.statistics import (
    Estimate,
    Quantity,
    Summary,
    curves_by_quantity,
    order_summaries,
    summarise_quantity,
    values_by_quantity,
)
from captum_gmar.evaluation.runs.batches import Skipped
from captum_gmar.evaluation.runs.journal import Result
from captum_gmar.evaluation.runs.progress import count
from captum_gmar.evaluation.settings import EvaluationSettings
from captum_gmar.files.markdown import table
from captum_gmar.metrics import PerturbationCurve
from captum_gmar.metrics._statistics import FEWEST
from captum_gmar.metrics.controls import CONTROLS

NO_DROP = (
    "A map that shows the whole image, as a uniform one does, has an average drop of 0, which is no merit: read it "
    "together with average-gain."
)
AGAINST_ZERO = {True: "better", False: "worse", None: "no difference shown"}
MEANS = "Means over the images, with 95 % bootstrap intervals."
FEW_MEANS = f"Means over the images; fewer than {FEWEST} show neither an interval nor which method is better."


Records: TypeAlias = list[dict[str, Any]]
"""Rows for ``pandas.DataFrame``, and of CSV files."""


class Provenance(NamedTuple):
    """The origin of results."""

    model: str
    data: str
    examples: int
    settings: EvaluationSettings  # complete ones
    removals: Mapping[str, str]  # from names to full names, in the order of the tables
    command: str
    versions: Mapping[str, str]
    seconds: Mapping[str, float]  # of each method for a map, on average
    skipped: Sequence[Skipped]


class Tables(NamedTuple):
    """All that is written of an evaluation."""

    summaries: Sequence[Summary]  # of every metric and removal, in the order of the settings
    curves: Mapping[Quantity, Mapping[str, PerturbationCurve]]  # of every method
    records: Mapping[str, Records]  # by the name of the table
    report: str
    citations: str  # caption of the plots, and BibTeX of the methods


def summarise(results: Sequence[Result], examples: Sequence[Example], run: Provenance) -> Tables:
    """Return all tables of results, which give the numbers of their examples."""
    values = values_by_quantity(results)
    summaries = order_summaries(
        [summarise_quantity(quantity, methods, run.settings.seed) for quantity, methods in values.items()],
        run.settings.metrics or (),
        list(run.removals),
    )
    points = curves_by_quantity(results)
    curves = {
        quantity: {
            method: PerturbationCurve(
                torch.tensor(values[quantity][method]),
                torch.from_numpy(curve),
                torch.linspace(0, 1, curve.shape[1]),
                run.removals[quantity.removal],
            )
            for method, curve in methods.items()
        }
        for quantity, methods in points.items()
    }
    records = {
        **_example_records(results, examples),
        **_summary_records(summaries),
        "curves": [
            {**quantity._asdict(), "method": method, "share": float(share), "mean": float(mean)}
            for quantity, methods in points.items()
            for method, curve in methods.items()
            for share, mean in zip(np.linspace(0, 1, curve.shape[1]), curve.mean(0), strict=True)
        ],
        "skipped": [skip._asdict() for skip in run.skipped],
    }
    return Tables(summaries, curves, records, report_text(summaries, run), _citations(summaries, run))


def _example_records(results: Sequence[Result], examples: Sequence[Example]) -> dict[str, Records]:
    return {
        "examples": [
            {
                **{"example": result.number, "path": example.name},
                **{"label": "" if example.label is None else str(example.label), "target": result.target},
                **{"method": row.method, "metric": row.metric, "removal": row.removal, "value": row.value},
            }
            for result in results
            for example in [examples[result.number]]
            for row in result.rows
        ]
    }


def _summary_records(summaries: Sequence[Summary]) -> dict[str, Records]:
    return {
        "summary": [
            {**summary.quantity._asdict(), "method": method, "examples": summary.examples, **estimate._asdict()}
            for summary in summaries
            for method, estimate in zip(summary.methods, summary.means, strict=True)
        ],
        "differences": [
            {
                **summary.quantity._asdict(),
                **{"method": pair[0], "other": pair[1], "examples": summary.examples, "difference": estimate.mean},
                **{"low": estimate.low, "high": estimate.high},
            }
            for summary in summaries
            for pair, estimate in summary.differences.items()
            if summary.methods.index(pair[0]) < summary.methods.index(pair[1])
        ],
    }


def report_text(summaries: Sequence[Summary], run: Provenance) -> str:
    """Return the report."""
    parts = [_head(run, any(summary.examples < FEWEST for summary in summaries))]
    headline = [summary for summary in summaries if summary.quantity.metric == DIFFERENCE]
    if len(headline) > 1:
        titles = [summary.quantity.removal for summary in headline]
        parts += ["## Insertion less deletion, every removal", _grid(headline, titles)]
    for removal, name in {**run.removals, "": ""}.items():
        chosen = [summary for summary in summaries if summary.quantity.removal == removal]
        if chosen:
            titles = [f"{summary.quantity.metric} {arrow(summary.quantity.metric)}".rstrip() for summary in chosen]
            parts += [f"## Removal: {name}" if name else "## Other metrics", _grid(chosen, titles)]
    if any(summary.quantity.metric == "average-drop" for summary in summaries):
        parts.append(NO_DROP)
    compared = headline or summaries
    if compared:
        parts += [f"## Differences to {compared[0].methods[0]}, on the same images", _differences(compared)]
    times = ([name, f"{1000 * mean:.1f}"] for name, mean in run.seconds.items())
    parts += ["## Time for a map", table(["method", "milliseconds an image"], times)]
    if run.skipped:
        parts += ["## Left out of every method", skipped_list(run.skipped)]
    return "\n\n".join(parts) + "\n"


def _citations(summaries: Sequence[Summary], run: Provenance) -> str:
    """Return the caption of the plots, and the papers of the methods as BibTeX."""
    has_too_few = any(summary.examples < FEWEST for summary in summaries)
    removals = f" Removal: {'; '.join(run.removals.values())}." if run.removals else ""
    caption = f"{count(run.examples)} of {run.data}.{removals} {FEW_MEANS if has_too_few else MEANS}"
    return cite_methods(run.settings.methods, caption)


def provenance_lines(model: str, data: str, explained: str, command: str, versions: Mapping[str, str]) -> list[str]:
    """Return the lines on the origin of results, which the reports have in common."""
    return [
        f"- model: {model}",
        f"- data: {data}",
        f"- explained: {explained}",
        f"- made by `{command}`",
        f"- versions: {', '.join(f'{name} {version}' for name, version in versions.items())}",
    ]


def skipped_list(skipped: Sequence[Skipped]) -> str:
    """Return a line for each image that was left out."""
    return "\n".join(f"- {skip.name}: {skip.reason}" for skip in skipped)


def _head(run: Provenance, has_too_few: bool) -> str:
    settings = run.settings
    steps = f"; {count(settings.steps, 'step')}" if settings.steps else ""
    explained = f"the {settings.target} class{steps}; perturbed images in {settings.precision}"
    return "\n".join(
        [
            "# Evaluation",
            "",
            *provenance_lines(run.model, f"{run.data}, {count(run.examples)}", explained, run.command, run.versions),
            "",
            f"{FEW_MEANS if has_too_few else MEANS} ↑ higher is better, ↓ lower. Maps of all methods are summed over "
            f"each patch. {', '.join(CONTROLS[:-1])} and {CONTROLS[-1]} know nothing of the model.",
        ]
    )


def _grid(summaries: Sequence[Summary], titles: Sequence[str]) -> str:
    """Return the table of methods × quantities."""
    cells = [dict(zip(summary.methods, summary.means, strict=True)) for summary in summaries]
    counts = [f"{title}, n = {summary.examples}" for title, summary in zip(titles, summaries, strict=True)]
    names = dict.fromkeys(name for summary in summaries for name in summary.methods)
    return table(
        ["method", *counts],
        ([name, *(str(column[name]) if name in column else "" for column in cells)] for name in names),
    )


def _differences(summaries: Sequence[Summary]) -> str:
    """Return the table of every method minus the first one."""
    rows = (
        [name, _quantity_name(summary.quantity), str(estimate), _verdict(summary.quantity, estimate)]
        for name in summaries[0].methods[1:]
        for summary in summaries
        for estimate in [summary.differences[name, summary.methods[0]]]
    )
    return table(["method", "quantity", "difference", "the method is"], rows)


def _verdict(quantity: Quantity, estimate: Estimate) -> str:
    """Return what the interval of a difference shows, or what it cannot."""
    if estimate.low is None or estimate.high is None:
        return "not shown by so few"
    direction = arrow(quantity.metric)
    is_open = estimate.low <= 0 <= estimate.high or not direction
    return AGAINST_ZERO[None if is_open else (estimate.mean > 0) == (direction == "↑")]


def _quantity_name(quantity: Quantity) -> str:
    """Return metric and removal; of the difference, which the heading names, the removal alone."""
    metric, removal = quantity
    return removal if metric == DIFFERENCE else ", ".join(filter(None, (metric, removal)))
