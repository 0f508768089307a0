"""What a map costs beside how faithful it is, of the methods of an evaluation: one point each.

    python -m benchmarks.cost FOLDER --model MODEL --output FILE.png [--metric srg] [--removal mean] [--rounds 7]
    python -m benchmarks.cost FOLDER --passes --output FILE.png [--removal mean]

FOLDER is one of results, as `captum-gmar evaluate` and `benchmarks.rivals` write it, of which summary.csv is read. The
cost of a method on one image is measured here, each time between two of the model's own passes forward: the median of
the ratios. FILE.csv beside the picture holds the numbers. With `--passes` the cost is the budget in a method's name,
one line joins the budgets of a method, one panel has SRG and one insertion minus deletion, and nothing is measured.
"""

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import torch
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import LogLocator, NullFormatter
from torch import nn

from benchmarks import many_passes
from benchmarks.leads import read_rows
from benchmarks.plots import save
from benchmarks.rivals import MANY_PASSES, OF_LOG_ODDS, rivals
from captum_gmar.attr.catalogue import CAPTUMS, OURS
from captum_gmar.attr.patch_relevance import images_at_once, relevance_of
from captum_gmar.classifier import load_classifier
from captum_gmar.demo import model_folder
from captum_gmar.files.writing import write_csv
from captum_gmar.metrics.controls import CONTROLS
from captum_gmar.visualization._style import BLUE, GREEN, GREY, VERMILION

FREE = 1.0  # the cost that controls are drawn at
BUDGETED = {"srg": "SRG", "srg-probability": "insertion − deletion"}  # what is drawn over passes


class Point(NamedTuple):
    """A method."""

    name: str
    cost: float | None  # × the model's own pass forward; None for controls
    value: float
    low: float
    high: float


def read_means(folder: Path, metric: str, removal: str) -> dict[str, tuple[float, ...]]:
    """Return each method's mean and interval by name, NaN where none is known.

    Raises:
        ValueError: if the folder has none of this metric and removal.
    """
    of_all = read_rows(folder / "summary.csv")
    rows = [row for row in of_all if (row["metric"], row["removal"]) == (metric, removal)]
    if not rows:
        raise ValueError(f"{folder}: must hold {metric} with the removal {removal!r}, but got other quantities.")
    return {row["method"]: tuple(float(row[name] or "nan") for name in ("mean", "low", "high")) for row in rows}


def measure_costs(model: nn.Module, methods: Sequence[str], rounds: int) -> dict[str, float]:
    """Return each method's time for one image by name, as a multiple of the model's own pass."""
    pixels = torch.randn(1, 3, *_size(model), generator=torch.Generator().manual_seed(0))
    makers = rivals(with_many_passes=True)
    made = {name: makers[name](model) for name in methods if name in makers}
    given, at_once = (model, pixels, torch.tensor([0])), images_at_once(pixels.device)
    calls = {name: partial(relevance_of, method, *given, batch_size=at_once) for name, method in made.items()}
    own = torch.no_grad()(partial(model, pixels))
    ratios: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds + 1):  # the first warms up
        for name, call in calls.items():
            before, seconds, after = map(_seconds, (own, call, own))
            ratios[name].append(2 * seconds / (before + after))
    return {name: median(of_method[1:]) for name, of_method in ratios.items()}


def _seconds(call: Callable[[], Any]) -> float:
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


def draw_costs(points: Sequence[Point], metric: str, removal: str) -> Figure:
    """Cost to the right, on a logarithmic axis; what is measured upwards, with its interval."""
    figure = Figure(figsize=(8.4, max(4, 0.2 * len(points))), layout="constrained")
    panel = figure.subplots()
    for number, point in enumerate(sorted(points, key=lambda point: -point.value), 1):
        _draw_point(panel, number, point)
    panel.set(
        xscale="log", xlabel="cost of a map, × the model's own pass forward", ylabel=f"{metric}, removal: {removal}"
    )
    panel.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    panel.xaxis.set_major_formatter("{x:g}")
    panel.xaxis.set_minor_formatter(NullFormatter())
    panel.grid(alpha=0.3)
    panel.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False, fontsize="small", handlelength=1)
    return figure


def _draw_point(panel: Axes, number: int, point: Point) -> None:
    colour, marker = _style(point)
    cost = point.cost or FREE
    panel.plot([cost, cost], [point.low, point.high], color=colour, linewidth=0.8, alpha=0.5)
    panel.plot(cost, point.value, marker, color=colour, markersize=5, label=f"{number}  {point.name}")
    panel.annotate(str(number), (cost, point.value), (4, 2), textcoords="offset points", fontsize="x-small")


def draw_budgets(means: Mapping[str, Mapping[str, tuple[float, ...]]], removal: str) -> Figure:
    """Passes to the right, on a logarithmic axis; a panel for each quantity, upwards; a line for each method."""
    figure = Figure(figsize=(10, 4.4), layout="constrained")
    panels: Any = figure.subplots(1, len(means), squeeze=False)
    for panel, (title, of_methods) in zip(panels[0], means.items(), strict=True):
        _draw_lines(panel, _by_method(of_methods))
        panel.set(xscale="log", xlabel="passes for a map", title=f"{title}, removal: {removal}")
        ticks = sorted({_passes(name) for name in of_methods})
        panel.set_xlim(ticks[0] * 0.8, ticks[-1] * 6)  # room for the names
        panel.set_xticks(ticks, map(str, ticks))
        panel.minorticks_off()
        panel.grid(alpha=0.3)
    return figure


def _draw_lines(panel: Axes, lines: Mapping[str, list[tuple[int, float]]]) -> None:
    """Draw a line of each method, with its name at the end."""
    others = sorted({name.partition("@")[0] for name in many_passes.rows() if "@" in name} - {"token-evidence"})
    places = dict(zip(others, (1, 2, 3, 4, 9, 5, 6, 8), strict=True))  # neither blue nor grey
    for name, points in sorted(lines.items()):
        width, size, colour = (3, 7, BLUE) if name == "token-evidence" else (1.2, 4, colormaps["tab10"](places[name]))
        panel.plot(*zip(*sorted(points), strict=True), "o-", color=colour, linewidth=width, markersize=size, label=name)
    low, high = panel.get_ylim()
    for line in panel.get_lines():
        name, passes = line.get_label(), line.get_xdata()[-1]
        same_end = {other: max(points)[1] for other, points in lines.items() if max(points)[0] == passes}
        at = (passes, _apart(same_end, (high - low) / 24)[name])
        options = {"weight": "bold" if name == "token-evidence" else "normal", "size": 8, "color": line.get_color()}
        text = panel.annotate(name, at, (6, 0), textcoords="offset points", va="center", **options)
        text.set_path_effects([withStroke(linewidth=2, foreground="white")])


def _by_method(means: Mapping[str, tuple[float, ...]]) -> dict[str, list[tuple[int, float]]]:
    """Return the budgets and means of each method; of controls and of names that tell no budget, none."""
    methods: dict[str, list[tuple[int, float]]] = {}
    for name, (mean, *_) in means.items():
        if name in MANY_PASSES or name.endswith(" map") or name in CONTROLS:
            continue
        methods.setdefault(name.partition("@")[0], []).append((_passes(name), mean))
    return methods


def _passes(name: str) -> int:
    return int(name.partition("@")[2] or 1)


def _apart(values: Mapping[str, float], gap: float) -> dict[str, float]:
    """Return the values moved up until the next is a gap away."""
    places: dict[str, float] = {}
    for name in sorted(values, key=values.__getitem__):
        places[name] = max(values[name], max(places.values(), default=-float("inf")) + gap)
    return places


def _style(point: Point) -> tuple[str, str]:
    """Colour and marker: of what knows no model, of this library, of Captum, of LRP."""
    if point.cost is None:
        return GREY, "x"
    if point.name.partition("@")[0] in (*OURS, *OF_LOG_ODDS):
        return BLUE, "o"
    return (VERMILION, "s") if point.name in CAPTUMS else (GREEN, "^")


def _size(model: nn.Module) -> tuple[int, int]:
    size: Any = getattr(model.config, "image_size", 224)
    return (size, size) if isinstance(size, int) else tuple(size)


def to_points(means: Mapping[str, tuple[float, ...]], costs: Mapping[str, float]) -> list[Point]:
    """Return the points of the methods that were timed, and of the controls."""
    return [Point(name, costs.get(name), *mean) for name, mean in means.items() if name in costs or name in CONTROLS]


def main(given: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        "python -m benchmarks.cost", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", help="that of the evaluation (default: the built-in one)")
    parser.add_argument("--metric", default="srg")
    parser.add_argument("--removal", default="mean")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--passes", action="store_true", help="take costs from the names, and measure none")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE.png")
    arguments = parser.parse_args(given)
    names = list(BUDGETED) if arguments.passes else [arguments.metric]
    try:
        found = {name: read_means(arguments.folder, name, arguments.removal) for name in names}
    except (OSError, ValueError) as error:
        parser.error(str(error))
    if arguments.passes:
        titled = {BUDGETED[name]: means for name, means in found.items()}
        save(draw_budgets(titled, arguments.removal), arguments.output)
        return
    means = found[arguments.metric]
    with model_folder() as built_in:
        model = load_classifier(arguments.model or built_in, device=torch.device("cpu")).model
    points = to_points(means, measure_costs(model, list(means), arguments.rounds))
    header = ["method", "cost", arguments.metric, "low", "high"]
    rows = (["" if value is None or value != value else value for value in point] for point in points)
    write_csv(arguments.output.with_suffix(".csv"), header, rows)
    save(draw_costs(points, arguments.metric, arguments.removal), arguments.output)


if __name__ == "__main__":
    main()
