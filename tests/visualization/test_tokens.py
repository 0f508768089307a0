"""Relevance on its way down, and seen from a patch."""

import numpy as np
import pytest
import torch
from matplotlib import pyplot
from pictures import assert_nothing_overlaps, shown
from PIL import Image

from captum_gmar.visualization import overlay_attribution, visualize_relevance_flow, visualize_token_interaction
from captum_gmar.visualization._heatmap import outline_box

PHOTO = np.random.default_rng(0).integers(0, 256, (32, 48, 3), dtype=np.uint8)
FLOW = np.random.default_rng(1).random((3, 4, 6))


def flow_of(*args, **options):
    return visualize_relevance_flow(*args, use_pyplot=False, **options)


def interaction_of(*args, **options):
    return visualize_token_interaction(*args, use_pyplot=False, **options)


def test_flow_from_the_last_layer_to_the_first():
    figure, axes = flow_of(torch.from_numpy(FLOW), PHOTO, prefix_share=torch.tensor([0.5, 0.254, 0.0]), title="GMAR")
    assert [panel.get_title() for panel in axes] == [
        "photo",
        "below layer 2\nprefix tokens 50 %",
        "below layer 1\nprefix tokens 25 %",
        "below layer 0\nprefix tokens 0 %",
    ]
    for panel, values in zip(axes[1:], FLOW, strict=True):
        np.testing.assert_array_equal(shown(panel), np.asarray(overlay_attribution(values, PHOTO)))
    assert figure.get_suptitle() == "GMAR"
    assert not pyplot.get_fignums()


def test_layers_have_their_numbers():
    _, axes = flow_of(FLOW, PHOTO, layers=(-1, -2, -3))
    assert [panel.get_title() for panel in axes[1:]] == ["below layer −1", "below layer −2", "below layer −3"]


@pytest.mark.parametrize("layers", [1, 12])
def test_nothing_overlaps_in_a_flow(layers):
    maps = np.random.default_rng(0).random((layers, 4, 6))
    figure, _ = flow_of(maps, PHOTO, prefix_share=np.linspace(0, 1, layers), title="a title " * 30)
    assert figure.get_figwidth() < 10
    assert_nothing_overlaps(figure)


@pytest.mark.parametrize(("row", "column"), [(0, 0), (1, 5), (3, 2)])
def test_the_patch_is_framed_and_the_others_have_the_colours(row, column):
    others = FLOW[0] ** 3  # whose scale ends at the largest and not at twice the mean
    values = others.copy()
    values[row, column], others[row, column] = 50, others.max()  # both of the last colour
    figure, axes = interaction_of(values, PHOTO, (row, column), title="a title")
    assert [panel.get_title() for panel in axes] == ["photo", "patches", "smooth"]
    box = (8 * column, 8 * row, 8 * column + 8, 8 * row + 8)
    expected = outline_box(overlay_attribution(others, PHOTO), box)
    np.testing.assert_array_equal(shown(axes[1]), np.asarray(expected))
    np.testing.assert_array_equal(shown(axes[0]), np.asarray(outline_box(Image.fromarray(PHOTO), box)))
    assert axes[1].get_xlabel() == "relevance for the framed patch\nthe framed patch itself keeps 50"
    assert axes[1].texts[-1].get_text().startswith("≥ ")
    assert not pyplot.get_fignums()
    assert_nothing_overlaps(figure)


def test_the_patch_is_framed_in_the_crop():
    _, axes = interaction_of(FLOW[0], PHOTO, (1, 2), crop=(12, 8, 36, 24))
    expected = outline_box(Image.fromarray(PHOTO), (20, 12, 24, 16))
    np.testing.assert_array_equal(shown(axes[0]), np.asarray(expected))


@pytest.mark.parametrize("shape", [(1, 1), (1, 2)])
def test_interaction_of_few_patches(shape):
    _, axes = interaction_of(np.full(shape, 0.5), PHOTO, (0, 0))
    assert axes[1].get_xlabel().endswith("\nthe framed patch itself keeps 0.5")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"relevance": FLOW[0]}, ValueError, r"relevance must have the shape \(several, rows, columns\), but got"),
        ({"relevance": np.full((1, 4, 6), np.nan)}, ValueError, r"relevance\[0\] must be finite, but got NaN"),
        ({"layers": (1, 0)}, ValueError, r"layers must name each of the 3 maps, but got 2 numbers"),
        ({"prefix_share": np.ones(2)}, ValueError, r"a number from 0 to 1 for each of 3 maps, but got"),
        ({"prefix_share": np.array([0, 50, 100])}, ValueError, r"prefix_share must be a number from 0 to 1"),
    ],
)
def test_flow_that_cannot_be_drawn(options, error, message):
    with pytest.raises(error, match=message):
        flow_of(**{"relevance": FLOW, "image": PHOTO, **options})


@pytest.mark.parametrize(
    ("relevance", "patch", "error", "message"),
    [
        (FLOW, (0, 0), ValueError, r"relevance must have the shape \(rows, columns\), but got shape \(3, 4, 6\)"),
        (FLOW[0], (0, 6), ValueError, r"in the 4x6 patch grid.*but got \(0, 6\)"),
        (FLOW[0], (-1, 0), ValueError, r"in the 4x6 patch grid"),
        (FLOW[0], (0.5, 1), TypeError, r"patch must be a tuple \(row, column\) of integers, but got \(0\.5, 1\)"),
    ],
)
def test_interaction_that_cannot_be_drawn(relevance, patch, error, message):
    with pytest.raises(error, match=message):
        interaction_of(relevance, PHOTO, patch)
