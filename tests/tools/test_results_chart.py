"""The chart of all methods and the table below it are those of the tables of results."""

import csv

import pytest

pytest.importorskip("tools.results_chart", reason="the tools are not installed; they stand in a checkout")

from captum_gmar.attr.catalogue import METHODS, RECOMMENDED
from captum_gmar.metrics.controls import CONTROLS
from tools.results_chart import LAST, PANELS, RESULTS, Interval, draw, order, read_means, table


def test_the_recommended_method_is_first_and_the_random_map_last():
    means = {
        name: Interval(mean, mean, mean) for name, mean in (("a", 0.2), (LAST, 0.9), (RECOMMENDED, 0.1), ("b", 0.3))
    }
    assert order(means) == [RECOMMENDED, "b", "a", LAST]


def test_means_are_those_of_the_files():
    (folder,) = {folders[0] for folders in PANELS.values() if "built-in" in folders}
    with (RESULTS / folder / "summary.csv").open(encoding="utf-8") as file:
        rows = {(row["metric"], row["method"]): float(row["mean"]) for row in csv.DictReader(file)}
    areas = rows["insertion", RECOMMENDED] - rows["deletion", RECOMMENDED]
    assert read_means((folder,))[RECOMMENDED].mean == pytest.approx(areas, abs=1e-6)


def test_the_page_holds_the_table_and_every_method():
    text = (RESULTS / "README.md").read_text(encoding="utf-8")
    assert table() in text
    named = {line.split("|")[1].strip(" *") for line in table().splitlines()[2:]}
    assert {*METHODS} - {"feature-ablation"} | {*CONTROLS} <= named


def test_every_method_has_a_row_in_the_chart():
    panel = draw().axes[0]
    assert panel.get_yticklabels()[0].get_text() == RECOMMENDED
    assert len(panel.get_yticks()) == len(table().splitlines()) - 2
