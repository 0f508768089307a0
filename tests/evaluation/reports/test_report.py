"""``summary.md`` says what the numbers say."""

import numpy as np
import pytest

from captum_gmar.evaluation.catalogue import DIFFERENCE
from captum_gmar.evaluation.reports.report import Provenance, report_text
from captum_gmar.evaluation.reports.report_files import plot_means
from captum_gmar.evaluation.reports.statistics import Quantity, summarise_quantity
from captum_gmar.evaluation.runs.batches import Skipped
from captum_gmar.evaluation.settings import EvaluationSettings

RUN = Provenance(
    model="a model",
    data="photos",
    examples=40,
    settings=EvaluationSettings(("first",), steps=7),
    removals={"mean": "mean", "blur": "blur (sigma 10)"},
    command="captum-gmar evaluate photos",
    versions={"torch": "2.13"},
    seconds={"first": 0.0123, "second": 1.0},
    skipped=[],
)


def noisy(mean):
    return (mean + 0.01 * np.random.default_rng(round(1000 * mean)).normal(size=40)).tolist()


def table(report, heading):
    """The rows below a heading, by their first two cells."""
    lines = report.split(f"## {heading}")[1].split("##")[0].strip().splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    return {tuple(row[:2]): row for row in cells[2:]}


@pytest.mark.fault
def test_which_method_is_better():
    better = {"first": noisy(0.3), "second": noisy(0.6), "third": noisy(0.3)[::-1]}
    lower_is_better = {"first": noisy(0.3), "second": noisy(0.6), "third": noisy(0.2)}
    summaries = [
        summarise_quantity(Quantity(DIFFERENCE, "mean"), better),
        summarise_quantity(Quantity(DIFFERENCE, "blur"), better),
        summarise_quantity(Quantity("average-drop", ""), lower_is_better),
    ]
    found = table(report_text(summaries, RUN), "Differences to first")
    assert found["second", "mean"][3] == "better"
    assert found["third", "blur"][3] == "no difference shown"
    drops = table(report_text(summaries[2:], RUN), "Differences to first")
    assert drops["second", "average-drop"][3] == "worse"
    assert drops["third", "average-drop"][3] == "better"


def test_few_images_show_neither_interval_nor_verdict():
    values = {"first": [0.1] * 9, "second": [0.9] * 9}
    summaries = [summarise_quantity(Quantity(DIFFERENCE, removal), values) for removal in RUN.removals]
    report = report_text(summaries, RUN._replace(examples=9))
    assert "Means over the images; fewer than 10 show neither an interval nor which method is better." in report
    found = table(report, "Differences to first")
    assert found["second", "mean"][2:] == ["0.800", "not shown by so few"]
    assert "[" not in report.split("##", 1)[1]
    _, (panel, _) = plot_means(summaries, summaries, use_pyplot=False)
    assert [len(line.get_xdata()) for line in panel.get_lines()] == [1, 1]
    assert panel.get_xlabel() == "mean, too few for an interval, n = 9"


def test_every_removal_has_its_table():
    quantities = [Quantity(metric, removal) for metric in ("insertion", "deletion") for removal in ("mean", "blur")]
    report = report_text([summarise_quantity(quantity, {"first": [0.25, 0.75] * 5}) for quantity in quantities], RUN)
    for heading in ("Removal: mean", "Removal: blur (sigma 10)"):
        assert "## " + heading in report
    assert "insertion ↑, n = 10" in report
    assert "0.500 [0.350, 0.650]" in report  # of ten coins, 3 to 7 heads
    assert "## Other metrics" not in report


def test_head():
    report = report_text([summarise_quantity(Quantity("average-gain", ""), {"first": [0.0]})], RUN)
    for part in (
        "a model",
        "photos, 40 images",
        "the predicted class; 7 steps; perturbed images in float32",
        "`captum-gmar evaluate photos`",
        "torch 2.13",
        "| first  |                  12.3 |",
    ):
        assert part in report
    assert "Left out" not in report


@pytest.mark.parametrize("name", ["b.png", "c d.jpg"])
def test_left_out_images_are_listed(name):
    run = RUN._replace(skipped=[Skipped(3, name, "cannot be read")])
    report = report_text([summarise_quantity(Quantity("average-gain", ""), {"first": [0.0]})], run)
    assert f"## Left out of every method\n\n- {name}: cannot be read\n" in report


def test_differences_name_metric_and_removal():
    values = {"first": noisy(0.3), "second": noisy(0.6)}
    summaries = [
        summarise_quantity(Quantity(metric, removal), values) for metric in ("srg", "aopc") for removal in RUN.removals
    ]
    found = table(report_text(summaries, RUN), "Differences to first")
    assert [name for _, name in found] == ["srg, mean", "srg, blur", "aopc, mean", "aopc, blur"]
