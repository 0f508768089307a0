"""What one method leads the others by, of a folder of results, as a table in Markdown.

    python -m benchmarks.leads FOLDER [--of token-evidence] [--metrics srg,srg-probability,relevance-mass]

In the row of each method its mean, and in brackets what the method leads it by on the same images, with the 95 %
interval, bold where that leaves out zero. The methods stand in the order of the first metric, best first.
"""

import argparse
import csv
from collections.abc import Sequence
from math import isnan
from pathlib import Path
from typing import NamedTuple

from captum_gmar.cli.options import names_of
from captum_gmar.evaluation.catalogue import METRICS
from captum_gmar.visualization._style import number_text

DEFAULT_METRICS = ("srg", "srg-probability", "relevance-mass")

Column = tuple[str, str]  # metric and removal


class Lead(NamedTuple):
    """Lead of a method with its interval, which is NaN for too few images."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        mean, *ends = (number_text(number, "+.3f") for number in self)
        text = mean if isnan(self.low) else f"{mean} [{', '.join(ends)}]"
        return f"**{text}**" if self.low > 0 or self.high < 0 else text


def read_means(folder: Path) -> dict[Column, dict[str, float]]:
    """Return each method's mean by metric and removal."""
    means: dict[Column, dict[str, float]] = {}
    for row in read_rows(folder / "summary.csv"):
        means.setdefault((row["metric"], row["removal"]), {})[row["method"]] = float(row["mean"])
    return means


def read_leads(folder: Path, leader: str) -> dict[Column, dict[str, Lead]]:
    """Return the leader's differences to all other methods by metric and removal."""
    leads: dict[Column, dict[str, Lead]] = {}
    for row in read_rows(folder / "differences.csv"):
        lead = Lead(float(row["difference"]), float(row["low"] or "nan"), float(row["high"] or "nan"))
        other = row["other"]
        if row["other"] == leader:
            lead, other = Lead(-lead.mean, -lead.high, -lead.low), row["method"]
        elif row["method"] != leader:
            continue
        leads.setdefault((row["metric"], row["removal"]), {})[other] = lead
    return leads


def table_of(folder: Path, leader: str, metrics: Sequence[str]) -> str:
    """Return the table as Markdown.

    Raises:
        OSError: if the folder holds no tables.
        ValueError: if they hold nothing of the leader or of these metrics.
    """
    means, leads = read_means(folder), read_leads(folder, leader)
    columns = [column for metric in metrics for column in means if column[0] == metric]
    if not columns or leader not in means[columns[0]]:
        raise ValueError(f"{folder}: must hold {leader} and some of {', '.join(metrics)}, but got other quantities.")
    first = means[columns[0]]
    lines = [["method", *(", ".join(filter(None, column)) for column in columns)], ["---"] * (1 + len(columns))]
    for method in sorted(first, key=lambda name: -first[name]):
        cells = (_cell(means[column][method], leads[column].get(method)) for column in columns)
        lines.append([method, *cells])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(mean: float, lead: Lead | None) -> str:
    text = number_text(mean, ".3f")
    return text if lead is None else f"{text} ({lead})"


def read_rows(path: Path) -> list[dict[str, str]]:
    """Read a table of results."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def main(given: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        "python -m benchmarks.leads", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--of", default="token-evidence", metavar="METHOD")
    parser.add_argument("--metrics", type=names_of(tuple(METRICS)), default=DEFAULT_METRICS, metavar="NAME,...")
    arguments = parser.parse_args(given)
    try:
        print(table_of(arguments.folder, arguments.of, arguments.metrics))
    except (OSError, ValueError) as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
