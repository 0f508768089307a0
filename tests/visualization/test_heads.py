"""Values of heads in their cells, and maps of heads in their order."""

import numpy as np
import pytest
import torch
from matplotlib import pyplot
from pictures import assert_nothing_overlaps
from PIL import Image

from captum_gmar.visualization import overlay_attribution, visualize_head_attention, visualize_head_importance
from captum_gmar.visualization._heatmap import OPACITY, PAPER, outline_box
from captum_gmar.visualization._style import FOR

PHOTO = np.random.default_rng(0).integers(0, 256, (32, 48, 3), dtype=np.uint8)
IMPORTANCE = np.array([[0.1, 0.2, 0.7], [0.5, 0.25, 0.25]])
ATTENTION = np.random.default_rng(1).random((3, 4, 6))


def cells(panel):
    """Return what is written at each (layer, head), as they are placed."""
    layers, heads = panel.images[0].get_array().shape[:2]
    texts = panel.texts[: layers * heads]
    return {(round(text.get_position()[1]), round(text.get_position()[0])): text.get_text() for text in texts}


def scale(panel):
    """Return the values below the colour bar."""
    layers, heads = panel.images[0].get_array().shape[:2]
    return [text.get_text() for text in panel.texts[layers * heads : -1]]


def importance_of(*args, **options):
    figure, (panel,) = visualize_head_importance(*args, use_pyplot=False, **options)
    return figure, panel


def attention_of(*args, **options):
    return visualize_head_attention(*args, use_pyplot=False, **options)


def test_every_value_in_its_cell():
    figure, panel = importance_of(torch.from_numpy(IMPORTANCE), title="a title", label="share")
    assert cells(panel) == {(layer, head): f"{value:.2f}" for (layer, head), value in np.ndenumerate(IMPORTANCE)}
    assert scale(panel) == ["0", "0.35", "0.7"]
    strongest = np.asarray(panel.images[0].get_array())[0, 2].astype(int)
    assert np.abs(strongest - ((1 - OPACITY) * PAPER + OPACITY * np.array(FOR))).max() <= 1
    assert (panel.get_xlabel(), panel.get_ylabel()) == ("head", "layer (0, the first, at the top)")
    assert panel.yaxis_inverted()
    assert panel.texts[-1].get_text() == "share"
    assert figure.get_suptitle() == "a title"
    assert not pyplot.get_fignums()


def test_spread_below_the_value():
    _, panel = importance_of(IMPORTANCE, spread=IMPORTANCE / 10)
    assert cells(panel)[0, 2] == "0.70\n±0.07"


def test_a_spread_that_is_small_beside_the_values_is_not_zero():
    _, panel = importance_of(np.array([[5.0, 2.8]]), spread=np.array([[0.03, 0.05]]))
    assert cells(panel) == {(0, 0): "5.00\n±0.03", (0, 1): "2.80\n±0.05"}


def test_colours_end_at_the_largest_value():
    assert scale(importance_of(np.array([[4.9, 5.0]]))[1]) == ["0", "2.5", "5"]
    assert scale(importance_of(np.zeros((2, 2)))[1]) == ["0"]


def test_negative_values_around_zero():
    _, panel = importance_of(np.array([[-0.2, 0.1], [0.0, -1e-9]]))
    assert scale(panel) == ["−0.2", "0", "0.2"]
    assert cells(panel) == {(0, 0): "−0.20", (0, 1): "0.10", (1, 0): "0.00", (1, 1): "0.00"}


@pytest.mark.parametrize(("scale", "text"), [(1e-7, "2.0e-08"), (1e-3, "2.0e-04"), (1.0, "0.20"), (1e3, "200")])
def test_numbers_have_the_digits_that_tell_them_apart(scale, text):
    _, panel = importance_of(scale * IMPORTANCE)
    assert cells(panel)[0, 1] == text.replace("-", "−")


def test_letters_stand_out_from_their_cell():
    _, panel = importance_of(np.linspace(-1, 1, 10)[None])
    colours = [text.get_color() for text in panel.texts[:10]]
    assert (colours[0], colours[4]) == ("white", "black")


@pytest.mark.parametrize("shape", [(1, 1), (6, 4), (24, 16)])
def test_importance_of_models_of_any_size(shape):
    values = np.random.default_rng(0).random(shape)
    figure, panel = importance_of(values, spread=values / 9, title="a title " * 20)
    assert figure.get_figwidth() < 10.5
    assert_nothing_overlaps(figure)
    renderer = figure.canvas.get_renderer()
    cell_width = panel.get_window_extent().width / shape[1]
    assert max(text.get_window_extent(renderer).width for text in panel.texts[: shape[0] * shape[1]]) < cell_width


def test_heads_by_importance_with_their_weights():
    figure, axes = attention_of(ATTENTION, PHOTO, torch.tensor([0.2, 0.5, 0.3]), title="layer 4", label="attention")
    assert [panel.get_title() for panel in axes] == [
        "photo",
        "head 1\nweight 0.5",
        "head 2\nweight 0.3",
        "head 0\nweight 0.2",
    ]
    for panel, head in zip(axes[1:], (1, 2, 0), strict=True):
        expected = np.asarray(overlay_attribution(ATTENTION[head], PHOTO))
        np.testing.assert_array_equal(panel.images[0].get_array(), expected)
    assert axes[0].get_xlabel() == "Every map has its\nown colour scale.\nColour bars: attention"
    assert figure.get_suptitle() == "layer 4"
    assert not pyplot.get_fignums()


def test_heads_in_their_order_without_weights():
    _, axes = attention_of(ATTENTION, PHOTO)
    assert [panel.get_title() for panel in axes] == ["photo", "head 0", "head 1", "head 2"]


def test_the_patch_that_looks_is_framed():
    _, axes = attention_of(ATTENTION, PHOTO, patch=(3, 1))
    _, plain = attention_of(ATTENTION, PHOTO)
    for panel, other in zip(axes, plain, strict=True):
        framed = outline_box(Image.fromarray(np.asarray(other.images[0].get_array())), (8, 24, 16, 32))
        np.testing.assert_array_equal(panel.images[0].get_array(), np.asarray(framed))


@pytest.mark.parametrize("heads", [1, 8])
@pytest.mark.parametrize("size", [(32, 48), (64, 32)])
def test_nothing_overlaps(heads, size):
    maps = 10.0 ** np.arange(-3, heads - 3)[:, None, None] * np.random.default_rng(0).random((heads, 4, 2))
    options = {"title": "a title " * 30, "label": "attention of the token of the middle patch, %"}
    figure, _ = attention_of(maps, np.zeros((*size, 3)), np.linspace(0, 1, heads), **options)
    assert figure.get_figwidth() < 10
    assert_nothing_overlaps(figure)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"importance": np.ones((2, 3, 4))},
            r"importance must have the shape \(layers, heads\), but got shape \(2, 3, 4\)",
        ),
        ({"importance": np.array([[1.0, np.inf]])}, r"importance must be finite"),
        ({"importance": IMPORTANCE, "spread": np.ones((1, 3))}, r"spread must have the shape of importance, \(2, 3\)"),
    ],
)
def test_importance_that_cannot_be_drawn(options, message):
    with pytest.raises(ValueError, match=message):
        importance_of(**options)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"attention": np.ones((4, 6))}, ValueError, r"attention must have the shape \(several, rows, columns\)"),
        ({"attention": np.full((1, 4, 6), np.nan)}, ValueError, r"attention\[0\] must be finite"),
        ({"importance": np.ones(2)}, ValueError, r"one number for each of the 3 heads, but got shape \(2,\)"),
        ({"importance": np.full(3, np.nan)}, ValueError, r"importance must be finite, but got NaN"),
        ({"patch": (4, 0)}, ValueError, r"patch must be in the 4x6 patch grid.* but got \(4, 0\)"),
        ({"patch": 3}, TypeError, r"patch must be a tuple \(row, column\) of integers, but got 3"),
    ],
)
def test_attention_that_cannot_be_drawn(options, error, message):
    with pytest.raises(error, match=message):
        attention_of(**{"attention": ATTENTION, "image": PHOTO, **options})
