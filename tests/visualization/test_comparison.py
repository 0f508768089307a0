"""Several maps side by side: each in its place with its own scale and name, and nothing over anything else."""

import numpy as np
import pytest
import torch
from matplotlib import pyplot
from matplotlib.backends.backend_agg import FigureCanvasAgg
from pictures import assert_nothing_overlaps, shown, ticks
from PIL import Image

from captum_gmar.visualization import overlay_attribution, visualize_comparison

RNG = np.random.default_rng(0)
PHOTOS = RNG.integers(0, 256, (2, 32, 48, 3), dtype=np.uint8)
MAPS = {"GMAR": RNG.random((2, 4, 6)), "Occlusion": 100 * RNG.standard_normal((2, 32, 48))}
LONG = ["gradient-rollout-gmar", "Integrated Gradients with SmoothGrad, n = 50, from a blurred image", "W" * 50]


def draw(attributions=MAPS, images=PHOTOS, **options):
    figure, axes = visualize_comparison(attributions, images, use_pyplot=False, **options)
    FigureCanvasAgg(figure).draw()
    return figure, axes


def test_a_row_for_each_image_and_a_column_for_each_method():
    figure, axes = draw(title="a title", label="what, unit")
    assert [[panel.get_title() for panel in row] for row in axes] == [["photo", "GMAR", "Occlusion"], ["", "", ""]]
    texts = ["what, unit", "what, unit\norange: for, blue: against"]
    for index, (photo, (first, *others)) in enumerate(zip(PHOTOS, axes, strict=True)):
        np.testing.assert_array_equal(shown(first), photo)
        for panel, maps, text in zip(others, MAPS.values(), texts, strict=True):
            np.testing.assert_array_equal(shown(panel), np.asarray(overlay_attribution(maps[index], photo)))
            assert panel.get_xlabel() == text
    assert figure.get_suptitle() == "a title"
    assert not pyplot.get_fignums()


def test_every_map_has_its_own_scale_and_it_is_said():
    maps = {"one": np.stack([np.linspace(0, 1, 24), np.linspace(0, 6, 24) ** 2]).reshape(2, 4, 6), "two": -np.eye(4, 6)}
    _, axes = draw({"one": maps["one"], "two": [maps["two"], 50 * maps["two"]]})
    assert [ticks(panel) for row in axes for panel in row[1:]] == [
        ["0", "0.5", "1"],
        ["−1", "0", "1"],
        ["0", "18", "36"],
        ["−50", "0", "50"],
    ]
    assert axes[-1][0].get_xlabel() == "Every map has its\nown colour scale."


def test_smooth_and_in_a_crop_of_each_image():
    crops = [(8.0, 4.0, 40.0, 28.0), None]
    _, axes = draw(smooth=True, crop=crops)
    for index, (photo, row) in enumerate(zip(PHOTOS, axes, strict=True)):
        expected = overlay_attribution(MAPS["GMAR"][index], photo, smooth=True, crop=crops[index])
        np.testing.assert_array_equal(shown(row[1]), np.asarray(expected))
    with pytest.raises(ValueError, match=r"crop must be one for each of the 2 images, but got 1"):
        draw(crop=crops[:1])
    _, (row,) = draw({"GMAR": MAPS["GMAR"][0]}, PHOTOS[0], crop=crops[0])
    expected = overlay_attribution(MAPS["GMAR"][0], PHOTOS[0], crop=crops[0])
    np.testing.assert_array_equal(shown(row[1]), np.asarray(expected))


def test_label_of_each_method():
    _, axes = draw(label={"GMAR": "share", "nothing": "no"}, note={"Occlusion": "One at a time."})
    signs = "orange: for, blue: against"
    assert [[panel.get_xlabel() for panel in row[1:]] for row in axes] == 2 * [["share", f"{signs}\nOne at a time."]]


@pytest.mark.parametrize(
    ("attributions", "images"),
    [
        (MAPS, list(PHOTOS)),
        (MAPS, [Image.fromarray(photo) for photo in PHOTOS]),
        (MAPS, torch.from_numpy(PHOTOS).movedim(-1, 1)),
        ({name: list(maps) for name, maps in MAPS.items()}, PHOTOS),
        ({name: torch.from_numpy(maps).requires_grad_() for name, maps in MAPS.items()}, PHOTOS / 255),
        ({name: [torch.from_numpy(maps[0]), maps[1]] for name, maps in MAPS.items()}, tuple(PHOTOS)),
    ],
)
def test_forms_of_maps_and_images(attributions, images):
    (_, axes), (_, expected) = draw(attributions, images), draw()
    for panels, others in zip(axes, expected, strict=True):
        for panel, other in zip(panels, others, strict=True):
            np.testing.assert_allclose(shown(panel), shown(other), atol=1)


@pytest.mark.parametrize("methods", [1, 2, 5, 6, 8])
@pytest.mark.parametrize("shape", [(1, 32, 48), (1, 64, 16), (2, 32, 32)])
def test_nothing_overlaps(methods, shape):
    names = [f"{LONG[index % len(LONG)]} {index}" for index in range(methods)]
    values = [10.0 ** (index - 5) * RNG.standard_normal(shape) for index in range(methods)]
    note = "Says nothing of what several patches do together."
    title = "photo.jpg: " + "a synonym of costs $5 and $6, " * 8
    label = "relevance per patch, % of all tokens"
    figure, _ = draw(dict(zip(names, values, strict=True)), np.zeros((*shape, 3)), title=title, label=label, note=note)
    assert_nothing_overlaps(figure)


def test_many_methods_of_one_image_take_several_rows():
    figure, axes = draw({str(index): PHOTOS[0, ..., 0] / 255 for index in range(8)}, PHOTOS[0])
    assert [panel.get_title() for panel in axes[0]] == ["photo", *map(str, range(8))]
    assert figure.axes == axes[0]
    assert len({round(panel.get_position().y0, 2) for panel in axes[0]}) == 2
    assert figure.get_figwidth() < 15


@pytest.mark.parametrize(
    ("attributions", "images", "message"),
    [
        ({}, PHOTOS, r"attributions must hold the maps of at least one method, but got none"),
        (MAPS, [], r"images must be at least one image, but got none"),
        (MAPS, PHOTOS[:1], r"attributions\['GMAR'\] must hold one map per image, 1, but got 2"),
        ({"a": np.ones((1, 1, 4, 6))}, PHOTOS[0], r"but got shape \(1, 1, 4, 6\)\. Pass one example"),
    ],
)
def test_values_that_do_not_fit(attributions, images, message):
    with pytest.raises(ValueError, match=message):
        draw(attributions, images)


@pytest.mark.parametrize(
    ("attributions", "images", "message"),
    [
        (MAPS["GMAR"], PHOTOS, r"must be a mapping from method names to maps, but got ndarray"),
        ({"a": 3}, PHOTOS, r"attributions\['a'\] must be a sequence, tensor or array of maps, but got int"),
        ({"a": [[1.0], [2.0]]}, PHOTOS, r"attributions\['a'\] must be a tensor or array of numbers, but got list"),
    ],
)
def test_wrong_types(attributions, images, message):
    with pytest.raises(TypeError, match=message):
        draw(attributions, images)


LONG_ROW = "a hound with a long name (class 123), or some other, probability 12.3%"
GRID = {"GMAR": np.arange(48.0).reshape(2, 4, 6), "Saliency": 2 * np.arange(48.0).reshape(2, 4, 6)}


def test_classes_by_methods_of_one_image():
    figure, axes = draw(GRID, PHOTOS[0], rows=["tabby", LONG_ROW])
    assert [row[0].get_ylabel().replace("\n", " ") for row in axes] == ["tabby", LONG_ROW]
    for number, row in enumerate(axes):
        for panel, maps in zip(row[1:], GRID.values(), strict=True):
            np.testing.assert_array_equal(shown(panel), np.asarray(overlay_attribution(maps[number], PHOTOS[0])))
    assert_nothing_overlaps(figure)


def test_one_scale_for_maps_of_one_unit():
    """Every map is drawn as if it were a part of one large map of all of its unit."""
    whole = np.concatenate([GRID["GMAR"].ravel(), GRID["Saliency"].ravel()]).reshape(1, -1)
    grey = np.zeros((1, whole.size, 3), np.uint8)
    colours = np.asarray(overlay_attribution(whole, grey)).reshape(2, 2, 4, 6, 3)
    _, axes = draw(GRID, np.zeros((4, 6, 3), np.uint8), rows=["one", "other"], share_scale=True)
    for column in range(2):
        for row in range(2):
            np.testing.assert_array_equal(shown(axes[row][column + 1]), colours[column, row])
    assert ticks(axes[0][1]) == []
    assert ticks(axes[1][1]) == ticks(axes[1][2]) == ["0", "47", "94"]
    assert axes[1][0].get_xlabel() == "Maps of one unit\nhave one colour scale."


def test_maps_of_other_units_keep_their_scale():
    label = {"GMAR": "share", "Saliency": "slope"}
    _, axes = draw(GRID, PHOTOS[0], rows=["one", "other"], share_scale=True, label=label)
    assert [ticks(panel)[-1] for panel in axes[1][1:]] == ["47", "94"]


def test_width_and_frame():
    figure, axes = draw(GRID, PHOTOS[0], rows=["one", LONG_ROW], width=6.5, box=(8, 8, 16, 16))
    assert figure.get_figwidth() == pytest.approx(6.5)
    assert_nothing_overlaps(figure)
    _, plain = draw(GRID, PHOTOS[0], rows=["one", "other"])
    for row, others in zip(axes, plain, strict=True):
        for panel, other in zip(row, others, strict=True):
            changed = np.argwhere((shown(panel) != shown(other)).any(-1))
            assert changed.min() == 7  # the black line outside the box
            assert changed.max() == 16


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rows": ["one"]}, r"rows must name each of the 2 images, but got 1 names"),
        ({"width": 1.0}, r"width must be at least 2\.30 inches for 3 columns, but got 1\.00"),
    ],
)
def test_rows_and_width_that_do_not_fit(options, message):
    with pytest.raises(ValueError, match=message):
        draw(**options)
