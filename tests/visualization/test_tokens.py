"""Relevance on its way down, and seen from a patch; maps smooth between the middles of patches."""

from typing import Any

import numpy as np
import pytest
import torch
from matplotlib import pyplot
from matplotlib.figure import Figure
from pictures import assert_nothing_overlaps

from captum_gmar.visualization import (
    visualize_attribution,
    visualize_comparison,
    visualize_relevance_flow,
    visualize_token_interaction,
)

PHOTO = np.random.default_rng(0).integers(0, 256, (32, 48, 3), dtype=np.uint8)
FLOW = np.random.default_rng(1).random((3, 4, 6))


def shown(panel: Any) -> np.ndarray:
    return np.asarray(panel.images[-1].get_array())


def flow_of(*args: Any, **options: Any) -> tuple[Figure, list[Any]]:
    return visualize_relevance_flow(*args, use_pyplot=False, **options)


def interaction_of(*args: Any, **options: Any) -> tuple[Figure, list[Any]]:
    return visualize_token_interaction(*args, use_pyplot=False, **options)


def test_flow_from_the_last_layer_to_the_first() -> None:
    figure, axes = flow_of(torch.from_numpy(FLOW), PHOTO, prefix_share=torch.tensor([0.5, 0.254, 0.0]), title="GMAR")
    assert [panel.get_title() for panel in axes] == [
        "photo",
        "below layer 2\nprefix tokens 50 %",
        "below layer 1\nprefix tokens 25 %",
        "below layer 0\nprefix tokens 0 %",
    ]
    for panel, values in zip(axes[1:], FLOW, strict=True):
        np.testing.assert_allclose(shown(panel), values.repeat(8, 0).repeat(8, 1))
        assert panel.images[-1].get_clim() == (0, pytest.approx(max(values.max(), 2 * values.mean())))
    assert figure.get_suptitle() == "GMAR"
    assert not pyplot.get_fignums()


def test_layers_have_their_numbers() -> None:
    _, axes = flow_of(FLOW, PHOTO, layers=(-1, -2, -3))
    assert [panel.get_title() for panel in axes[1:]] == ["below layer −1", "below layer −2", "below layer −3"]


@pytest.mark.parametrize("layers", [1, 12])
def test_nothing_overlaps_in_a_flow(layers: int) -> None:
    maps = np.random.default_rng(0).random((layers, 4, 6))
    figure, _ = flow_of(maps, PHOTO, prefix_share=np.linspace(0, 1, layers), title="a title " * 30)
    assert figure.get_figwidth() < 10
    assert_nothing_overlaps(figure)


@pytest.mark.parametrize(("row", "column"), [(0, 0), (1, 5), (3, 2)])
def test_the_patch_is_framed_and_the_others_have_the_colours(row: int, column: int) -> None:
    values = FLOW[0].copy()
    values[row, column] = 50
    figure, axes = interaction_of(values, PHOTO, (row, column), title="a title")
    assert [panel.get_title() for panel in axes] == ["photo", "relevance", "overlay"]
    for panel in axes:
        _, frame = panel.patches
        left, top = 8 * column - 0.5, 8 * row - 0.5
        assert frame.get_bbox().extents == pytest.approx([left, top, left + 8, top + 8])
    others = np.delete(FLOW[0], 6 * row + column)
    for panel in axes[1:]:
        assert panel.images[-1].get_clim() == (0, pytest.approx(max(others.max(), 2 * others.mean())))
        assert (shown(panel)[8 * row : 8 * row + 8, 8 * column : 8 * column + 8] == 50).all()
    bar = axes[1].images[0].colorbar.ax
    assert bar.get_xlabel() == "relevance for the framed patch\nthe framed patch itself keeps 50"
    assert bar.get_xticklabels()[-1].get_text().startswith("≥ ")
    assert not pyplot.get_fignums()
    assert_nothing_overlaps(figure)


@pytest.mark.parametrize("shape", [(1, 1), (1, 2)])
def test_interaction_of_few_patches(shape: tuple[int, int]) -> None:
    _, axes = interaction_of(np.full(shape, 0.5), PHOTO, (0, 0))
    assert axes[1].images[0].colorbar.ax.get_xlabel().endswith("\nthe framed patch itself keeps 0.5")


def test_shown_by_pyplot_once_and_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    before = pyplot.get_backend()
    pyplot.switch_backend("agg")
    frames: list[int] = []
    monkeypatch.setattr(pyplot, "show", lambda: frames.append(sum(len(axis.patches) for axis in pyplot.gcf().axes)))
    visualize_token_interaction(FLOW[0], PHOTO, (1, 1))
    visualize_relevance_flow(FLOW, PHOTO)
    pyplot.close("all")
    pyplot.switch_backend(before)
    assert frames == [6, 0]


def test_smooth_between_the_middles_of_patches() -> None:
    """Four pixels a patch: between middles at 1.5 and 5.5, values go in steps of 1/4, first 1/8 from the middle."""
    values = np.array([[0.0, 1.0]])
    expected = [0, 0, 0.125, 0.375, 0.625, 0.875, 1, 1]
    photo = np.zeros((4, 8))
    _, axes = visualize_attribution(values, photo, interpolation="bilinear", use_pyplot=False)
    for panel in axes[1:]:
        np.testing.assert_allclose(shown(panel), [expected] * 4)
        assert panel.images[-1].get_clim() == (0, 1)
    _, (row,) = visualize_comparison({"a": values}, photo, interpolation="bilinear", use_pyplot=False)
    np.testing.assert_allclose(shown(row[1]), [expected] * 4)


def test_pixels_and_the_default_stay_as_they_are() -> None:
    pixels = np.random.default_rng(0).random((3, 32, 48))
    for interpolation in ("nearest", "bilinear"):
        _, axes = visualize_attribution(pixels, PHOTO, interpolation=interpolation, use_pyplot=False)
        np.testing.assert_allclose(shown(axes[1]), pixels.sum(0))
    _, axes = visualize_attribution(FLOW[0], PHOTO, use_pyplot=False)
    np.testing.assert_allclose(shown(axes[1]), FLOW[0].repeat(8, 0).repeat(8, 1))


def test_interpolation_that_is_none() -> None:
    for draw, maps in ((visualize_attribution, FLOW[0]), (visualize_comparison, {"a": FLOW[0]})):
        with pytest.raises(ValueError, match=r"interpolation must be one of \['nearest', 'bilinear'\]\. Got 'smooth'"):
            draw(maps, PHOTO, interpolation="smooth", use_pyplot=False)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"relevance": FLOW[0]}, ValueError, r"relevance must have the shape \(several, rows, columns\)\. Got"),
        ({"relevance": np.full((1, 4, 6), np.nan)}, ValueError, r"relevance\[0\] must be finite\. Got NaN"),
        ({"layers": (1, 0)}, ValueError, r"layers must name each of the 3 maps\. Got 2 numbers instead"),
        ({"prefix_share": np.ones(2)}, ValueError, r"one number from 0 to 1 for each of the 3 maps\. Got array"),
        ({"prefix_share": np.array([0, 50, 100])}, ValueError, r"prefix_share must be one number from 0 to 1"),
    ],
)
def test_flow_that_cannot_be_drawn(options: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        flow_of(**{"relevance": FLOW, "image": PHOTO, **options})


@pytest.mark.parametrize(
    ("relevance", "patch", "error", "message"),
    [
        (FLOW, (0, 0), ValueError, r"relevance must have the shape \(rows, columns\)\. Got shape \(3, 4, 6\) instead"),
        (FLOW[0], (0, 6), ValueError, r"within the 4x6 patch grid .*Got \(0, 6\) instead"),
        (FLOW[0], (-1, 0), ValueError, r"within the 4x6 patch grid"),
        (FLOW[0], (0.5, 1), TypeError, r"patch must be a tuple \(row, column\) of integers\. Got \(0\.5, 1\)"),
    ],
)
def test_interaction_that_cannot_be_drawn(relevance: Any, patch: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        interaction_of(relevance, PHOTO, patch)
