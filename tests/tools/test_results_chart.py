"""The tables of the page of results are those of the files of results."""

import pytest

pytest.importorskip("tools.results_chart", reason="the tools are not installed; they stand in a checkout")

from captum_gmar.attr.catalogue import METHODS, RECOMMENDED
from captum_gmar.metrics.controls import CONTROLS
from tools.results_chart import LAST, RESULTS, Interval, order, tables


def test_the_recommended_method_is_first_and_the_random_map_last():
    means = {
        name: Interval(mean, mean, mean) for name, mean in (("a", 0.2), (LAST, 0.9), (RECOMMENDED, 0.1), ("b", 0.3))
    }
    assert order(means) == [RECOMMENDED, "b", "a", LAST]


def test_the_page_holds_the_tables_and_every_method():
    text = (RESULTS / "README.md").read_text(encoding="utf-8")
    assert all(made in text for made in tables())
    named = {line.split("|")[1].strip(" *") for line in tables()[0].splitlines()[2:]}
    assert {*METHODS} - {"feature-ablation"} | {*CONTROLS} <= named
