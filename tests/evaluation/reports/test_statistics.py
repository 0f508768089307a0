"""Means, intervals and paired differences against slow references."""

import math

import numpy as np
import pytest

from captum_gmar.evaluation.catalogue import DIFFERENCE
from captum_gmar.evaluation.reports.statistics import (
    Quantity,
    Summary,
    curves_by_quantity,
    order_summaries,
    summarise_quantity,
    values_by_quantity,
)
from captum_gmar.evaluation.runs.journal import Result, Row

INSERTION = Quantity("insertion", "blur")


def results():
    """Two examples, two methods."""
    numbers = {"a": [(0.9, 0.2), (0.7, 0.4)], "b": [(0.5, 0.5), (0.6, 0.1)]}  # insertion and deletion of each example
    return [
        Result(
            example,
            0,
            tuple(
                row
                for name, values in numbers.items()
                for row in (
                    Row(name, "insertion", "blur", values[example][0], (0.0, values[example][0])),
                    Row(name, "deletion", "blur", values[example][1]),
                    *([Row(name, "relevance-mass", "", 0.25)] if example else []),
                )
            ),
        )
        for example in (0, 1)
    ]


def test_values():
    found = values_by_quantity(results())
    assert found[INSERTION] == {"a": [0.9, 0.7], "b": [0.5, 0.6]}
    assert found[Quantity("relevance-mass", "")] == {"a": [0.25], "b": [0.25]}  # known of the second example only
    assert found[Quantity(DIFFERENCE, "blur")]["a"] == pytest.approx([0.7, 0.3])
    assert found[Quantity(DIFFERENCE, "blur")]["b"] == pytest.approx([0.0, 0.5])


def test_no_difference_without_both():
    only = [Result(0, 0, (Row("a", "insertion", "blur", 0.5),))]
    assert list(values_by_quantity(only)) == [INSERTION]


def test_curves():
    found = curves_by_quantity(results())
    assert list(found) == [INSERTION]
    np.testing.assert_array_equal(found[INSERTION]["b"], [[0.0, 0.5], [0.0, 0.6]])


def naive_interval(values, resamples):
    generator = np.random.default_rng(7)
    means = sorted(float(generator.choice(values, len(values)).mean()) for _ in range(resamples))
    return means[int(0.025 * resamples)], means[int(0.975 * resamples)]


def test_interval_is_that_of_a_naive_bootstrap():
    values = np.random.default_rng(0).gamma(1.0, size=60)
    summary = summarise_quantity(INSERTION, {"a": values.tolist()})
    (estimate,) = summary.means
    assert estimate.mean == pytest.approx(values.mean())
    low, high = naive_interval(values, 4000)
    width = high - low
    assert estimate.low == pytest.approx(low, abs=0.06 * width)
    assert estimate.high == pytest.approx(high, abs=0.06 * width)
    expected = 2 * 1.96 * values.std() / math.sqrt(len(values))
    assert estimate.high - estimate.low == pytest.approx(expected, rel=0.1)


def test_differences_are_paired():
    generator = np.random.default_rng(0)
    hard = generator.normal(size=100)  # how hard each image is, for all methods
    better = hard + 0.1 + 0.01 * generator.normal(size=100)
    summary = summarise_quantity(INSERTION, {"a": hard.tolist(), "b": better.tolist()})
    wide, narrow = summary.means[0], summary.differences["b", "a"]
    assert wide.high - wide.low > 0.3
    assert 0.09 < narrow.low < narrow.mean < narrow.high < 0.11
    assert summary.differences["a", "b"] == pytest.approx([-narrow.mean, -narrow.high, -narrow.low])


def test_the_same_seed_gives_the_same_numbers():
    values = {"a": np.random.default_rng(0).normal(size=20).tolist(), "b": [0.0] * 20}
    assert summarise_quantity(INSERTION, values, seed=1) == summarise_quantity(INSERTION, values, seed=1)
    assert summarise_quantity(INSERTION, values, seed=1) != summarise_quantity(INSERTION, values, seed=2)


@pytest.mark.fault
@pytest.mark.parametrize("examples", [1, 2, 9])
def test_few_examples_have_no_interval(examples):
    values = np.linspace(0, 1, examples)
    summary = summarise_quantity(INSERTION, {"a": values.tolist(), "b": [0.0] * examples})
    mean = pytest.approx(values.mean())
    assert summary.means == ((mean, None, None), (0, None, None))
    assert summary.differences["a", "b"] == (mean, None, None)
    assert str(summary.means[0]) == f"{values.mean():.3f}"


def test_ten_examples_have_an_interval():
    """Take halves at 0 and 1: means are those of ten coins, 2.5 % of which have 2 heads or fewer."""
    summary = summarise_quantity(INSERTION, {"a": [0.0, 1.0] * 5})
    assert str(summary.means[0]) == "0.500 [0.200, 0.800]"


def test_order():
    quantities = [
        Quantity("deletion", "b"),
        Quantity("deletion", "a"),
        Quantity(DIFFERENCE, "a"),
        Quantity("insertion", "b"),
    ]
    summaries = [Summary(quantity, (), 0, (), {}) for quantity in quantities]
    ordered = order_summaries(summaries, ["insertion", "deletion"], ["a", "b"])
    assert [summary.quantity for summary in ordered] == [quantities[i] for i in (3, 1, 0, 2)]
