"""Draws the first picture of ``docs/results`` and writes the tables of all methods: ``python -m tools.results_chart``.

The picture and the first table show insertion minus deletion, removal by blur, with intervals. The other tables show
the means of the removals and metrics that were measured. The recommended method is first, the others follow by their
means in the panel, and the random map is last.
"""

import re
from pathlib import Path
from typing import NamedTuple

from matplotlib import rc_context
from matplotlib.figure import Figure

from benchmarks.leads import read_rows
from captum_gmar.attr.catalogue import RECOMMENDED
from captum_gmar.evaluation.catalogue import REMOVALS
from captum_gmar.files.writing import TEXT_AS_TEXT
from captum_gmar.metrics.controls import CONTROLS
from captum_gmar.visualization._style import BLUE, GREY, VERMILION

RESULTS = Path(__file__).resolve().parents[1] / "docs" / "results"
PANELS = {  # the folders of each panel; a method of two folders is taken from the first
    "DeiT-tiny,\n300 photos": (
        "later-deit-tiny",
        "more-deit-tiny",
        "log-odds-deit-tiny",
        "deit-tiny",
        "nine-passes-deit-tiny",
        "mean-tokens-deit-tiny",
        "noise-deit-tiny",
        "log-odds-drop",
    ),
    "built-in model,\n80 scenes": ("newer-built-in", "built-in"),
    "DINOv2-small,\n24 photos": ("dinov2-small", "dinov2-small-mean-tokens", "dinov2-small-drop"),
}
MAIN = "insertion-deletion", "blur"  # metric and removal
COLUMNS = {("insertion-deletion", removal): removal for removal in REMOVALS}
COLUMNS |= {("relevance-mass", ""): "relevance in the object", ("pointing-game", ""): "pointing game"}
COLUMNS |= {("average-drop", ""): "average drop ↓", ("average-gain", ""): "average gain ↑"}
LAST = "random map"


class Interval(NamedTuple):
    """A mean over images and its 95 % interval."""

    mean: float
    low: float
    high: float


def read_means(title: str, column: tuple[str, str] = MAIN) -> dict[str, Interval]:
    """Return the mean of each method in a panel, for a metric and a removal."""
    found: dict[str, Interval] = {}
    for folder in PANELS[title]:
        for row in read_rows(RESULTS / folder / "summary.csv"):
            if (row["metric"], row["removal"]) == column:
                found.setdefault(row["method"], Interval(*(float(row[name]) for name in Interval._fields)))
    return found


def order(photos: dict[str, Interval]) -> list[str]:
    """Return the names from the top of the chart to its end."""
    return sorted(photos, key=lambda name: (name != RECOMMENDED, name == LAST, -photos[name].mean))


def read_panels() -> tuple[dict[str, dict[str, Interval]], list[str]]:
    """Return the means of each panel, and the names of all methods in their order."""
    panels = {title: read_means(title) for title in PANELS}
    return panels, order(next(iter(panels.values())))


def tables() -> list[str]:
    """Return the table of all panels, and one of each panel with its removals and metrics, as Markdown."""
    panels, names = read_panels()
    heads = [title.replace("\n", " ") for title in panels]
    made = [_markdown(heads, list(panels.values()), names, "{:.3f} [{:.3f}, {:.3f}]")]
    for title, means in panels.items():
        columns = {head: found for column, head in COLUMNS.items() if (found := read_means(title, column))}
        made.append(_markdown([*columns], [*columns.values()], order(means), "{:.3f}"))
    return made


def _markdown(heads: list[str], columns: list[dict[str, Interval]], names: list[str], form: str) -> str:
    lines = [["method", *heads], ["---"] * (1 + len(heads))]
    for name in names:
        cells = [form.format(*means[name]).replace("-", "−") if name in means else "–" for means in columns]
        mark = "**" if name == RECOMMENDED else "*" if name in CONTROLS else ""
        lines.append([f"{mark}{name}{mark}", *cells])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def draw() -> Figure:
    """Return the chart, narrow enough for a phone, on a transparent ground that suits a dark page."""
    panels, names = read_panels()
    figure = Figure(figsize=(4.4, 0.19 * len(names) + 0.8), layout="constrained")
    for axes, (title, means) in zip(figure.subplots(1, len(panels), sharey=True), panels.items(), strict=True):
        for place, name in enumerate(names):
            if name in means:
                mean, low, high = means[name]
                colour = VERMILION if name == RECOMMENDED else GREY if name in CONTROLS else BLUE
                axes.plot([low, high], [place, place], color=colour, linewidth=1.4)
                axes.plot(mean, place, "o", color=colour, markersize=3.5)
        axes.set_title(title, fontsize=8, color=GREY)
        axes.axvline(0, color=GREY, linewidth=0.8)
        axes.set_yticks(range(len(names)), names)
        axes.tick_params(labelsize=8, colors=GREY)
        axes.margins(y=0.02)
        axes.grid(axis="x", color=GREY, alpha=0.3)
        axes.spines[:].set_color(GREY)
        axes.spines[["top", "right"]].set_visible(False)
    axes.invert_yaxis()
    figure.supxlabel("insertion minus deletion, 95 % intervals; higher is better", fontsize=8, color=GREY)
    return figure


def main() -> None:
    """Write all."""
    with rc_context(TEXT_AS_TEXT | {"svg.hashsalt": ""}):  # the same numbers make the same file
        draw().savefig(RESULTS / "methods.svg", transparent=True, metadata={"Date": None})
    page, made = RESULTS / "README.md", iter(tables())
    written = re.sub(
        r"(tools.results_chart -->\n).*?(<!-- end -->)",
        lambda found: f"{found[1]}{next(made)}\n{found[2]}",
        page.read_text("utf-8"),
        flags=re.DOTALL,
    )
    page.write_text(written, encoding="utf-8")


if __name__ == "__main__":
    main()
