"""Curves are the means that were measured, with names, areas and ways of removal that belong to them."""

import numpy as np
import pytest
import torch
from matplotlib import pyplot
from matplotlib.figure import Figure
from pictures import assert_nothing_overlaps

from captum_gmar.metrics import PerturbationCurve
from captum_gmar.visualization import visualize_perturbation_curves

SHARES = torch.tensor([0.0, 0.5, 1.0])


def curve(*values, removal="zero", auc=0.25):
    return PerturbationCurve(torch.full((len(values),), auc), torch.tensor(values), SHARES, removal)


def draw(insertion, deletion, **options):
    return visualize_perturbation_curves(insertion, deletion, use_pyplot=False, **options)


def legend(panel):
    return [text.get_text() for text in panel.get_legend().get_texts()]


def test_means_over_percent_of_patches():
    found = {"a": curve([0.0, 0.2, 0.8], [0.0, 0.4, 1.0], removal="blur (sigma 10)")}
    figure, (insertion, deletion) = draw(found, {"a": curve([1.0, 0.5, 0.1])}, title="a title", label="logit")
    (line,) = insertion.get_lines()
    np.testing.assert_allclose(line.get_xdata(), [0, 50, 100])
    np.testing.assert_allclose(line.get_ydata(), [0, 0.3, 0.9], rtol=1e-6)
    np.testing.assert_allclose(deletion.get_lines()[0].get_ydata(), [1, 0.5, 0.1], rtol=1e-6)
    assert insertion.get_title() == "insertion: patches brought back\nremoval: blur (sigma 10)"
    assert deletion.get_title() == "deletion: patches removed\nremoval: zero"
    assert (insertion.get_xlabel(), deletion.get_xlabel()) == ("patches there, %", "patches removed, %")
    assert insertion.get_ylabel() == "logit"
    assert figure.get_suptitle() == "a title"
    assert not pyplot.get_fignums()


def test_band_is_the_mean_s():
    """Fifteen examples 0 and one 1: mean 1/16, standard deviation 1/4, standard error 1/16; none is below 0."""
    _, (panel,) = draw({"a": curve(*[[0.0]] * 15, [1.0])._replace(shares=SHARES[:1])}, None)
    (band,) = panel.collections
    heights = band.get_paths()[0].vertices[:, 1]
    assert (heights.min(), heights.max()) == (0, pytest.approx(1 / 16 + 1.96 / 16))


BAND, FEW = "; band: 95 % interval of the mean", "; no interval of fewer than 10 examples"


@pytest.mark.parametrize(
    ("methods", "examples", "bands", "told"),
    [(4, 10, 4, BAND), (5, 10, 0, ""), (1, 1, 0, ""), (4, 2, 0, FEW), (1, 9, 0, FEW)],
)
def test_bands_where_they_say_something_and_do_not_clutter(methods, examples, bands, told):
    curves = {str(index): curve(*[[0.0, 0.5, 1.0]] * examples) for index in range(methods)}
    curves["random map"] = curve(*[[0.0, 0.5, 1.0]] * examples)
    _, (panel,) = draw(None, curves)
    assert len(panel.collections) == bands
    assert panel.get_legend().get_title().get_text() == f"mean area, lower is better{told}"


def test_legend_tells_areas_best_first():
    curves = {name: curve([0.0, 0.5, 1.0], auc=auc) for name, auc in (("a", 0.25), ("b", 0.5), ("c_$x$", -0.125))}
    _, (insertion, deletion) = draw(curves, curves)
    assert legend(insertion) == ["0.500  b", "0.250  a", "−0.125  c_$x$"]
    assert legend(deletion) == ["−0.125  c_$x$", "0.250  a", "0.500  b"]
    assert insertion.get_legend().get_title().get_text() == "mean area, higher is better"
    assert deletion.get_legend().get_title().get_text() == "mean area, lower is better"


def styles(panel):
    return {line.get_label().split("  ")[1]: (line.get_color(), line._dash_pattern) for line in panel.get_lines()}


def test_many_methods_are_told_apart_and_alike_in_both_panels():
    names = [*(f"gradient-rollout-gmar {index}" for index in range(19)), "random map", "uniform map", "centre blob"]
    insertion = {name: curve([0.0, index / 22, 0.5]) for index, name in enumerate(names)}
    deletion = {name: curve([0.5, 1 - index / 22, 0.0]) for index, name in enumerate(reversed(names))}
    figure, panels = draw(insertion, deletion, title="DeiT-tiny")
    found = styles(panels[0])
    assert found == styles(panels[1])
    assert len(set(map(str, found.values()))) == 22
    assert {name for name, (colour, _) in found.items() if colour == "#808080"} == set(names[-3:])
    assert all(dashes[1] is not None for name, (_, dashes) in found.items() if name in names[-3:])
    assert figure.get_figwidth() < 10
    assert_nothing_overlaps(figure)


@pytest.mark.parametrize("methods", [1, 5])
def test_nothing_overlaps_in_one_panel(methods):
    figure, panels = draw({}, {str(index): curve([0.0, 0.5, 1.0]) for index in range(methods)})
    assert len(panels) == 1
    assert_nothing_overlaps(figure)


def test_draws_in_given_axes(monkeypatch):
    shown = []
    monkeypatch.setattr(pyplot, "show", lambda: shown.append(True))
    figure = Figure()
    axes = figure.subplots(1, 2)
    found = {"a": curve([0.0, 0.5, 1.0])}
    assert visualize_perturbation_curves(found, found, plt_fig_axis=(figure, axes)) == (figure, list(axes))
    assert shown == [True]
    with pytest.raises(ValueError, match=r"a figure and 1 of its axes, but got 2 axes"):
        draw(found, None, plt_fig_axis=(figure, axes))


@pytest.mark.parametrize(
    ("curves", "error", "message"),
    [
        ({}, ValueError, r"insertion or deletion must hold the curves of at least one method, but got none"),
        ([1], TypeError, r"deletion must be a mapping from method names to curves, but got list"),
        ({"a": 0.5}, TypeError, r"deletion\['a'\] must be a result of metrics.deletion, but got float"),
        ({"a": curve([0.0, np.nan, 1.0])}, ValueError, r"deletion\['a'\] must be finite, but got NaN or infinity"),
        (
            {"a": curve([0.0, 0.5, 1.0]), "b": curve([0.0, 0.5, 1.0], removal="mean")},
            ValueError,
            r"deletion must be curves of one removal.*but got \['mean', 'zero'\]",
        ),
    ],
)
def test_curves_that_cannot_be_drawn(curves, error, message):
    with pytest.raises(error, match=message):
        draw(None, curves)
