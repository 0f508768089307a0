"""Several maps side by side: each in its place with its own scale and name, and nothing over anything else."""

from collections.abc import Iterator
from itertools import combinations
from typing import Any

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib import pyplot
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from captum_gmar import visualize_attribution, visualize_comparison

RNG = np.random.default_rng(0)
PHOTOS = RNG.integers(0, 256, (2, 32, 48, 3), dtype=np.uint8)
MAPS = {"GMAR": RNG.random((2, 4, 6)), "Occlusion": 100 * RNG.standard_normal((2, 32, 48))}
LONG = ["gradient-rollout-gmar", "Integrated Gradients with SmoothGrad, n = 50, from a blurred image", "W" * 50]


@pytest.fixture(autouse=True)
def _without_windows() -> Iterator[None]:
    before = matplotlib.get_backend()
    pyplot.switch_backend("agg")
    yield
    pyplot.close("all")
    pyplot.switch_backend(before)


def draw(attributions: Any = MAPS, images: Any = PHOTOS, **options: Any) -> tuple[Figure, list[list[Any]]]:
    figure, axes = visualize_comparison(attributions, images, use_pyplot=False, **options)
    FigureCanvasAgg(figure).draw()
    return figure, axes


def bar(panel: Any) -> Any:
    return panel.images[-1].colorbar.ax


def ticks(panel: Any) -> list[str]:
    return [label.get_text() for label in bar(panel).get_xticklabels()]


def test_a_row_for_each_image_and_a_column_for_each_method() -> None:
    figure, axes = draw(title="a title", label="what, unit")
    assert [[panel.get_title() for panel in row] for row in axes] == [["photo", "GMAR", "Occlusion"], ["", "", ""]]
    for row, photo, *maps in zip(axes, PHOTOS, *MAPS.values(), strict=True):
        assert np.abs(np.asarray(row[0].images[0].get_array()).astype(int) - photo).max() <= 1
        texts = ["what, unit", "what, unit\nred: for, blue: against"]
        for panel, values, text in zip(row[1:], maps, texts, strict=True):
            whole = values if values.shape == (32, 48) else values.repeat(8, 0).repeat(8, 1)
            assert np.asarray(panel.images[-1].get_array()) == pytest.approx(whole)
            assert bar(panel).get_xlabel() == text
    assert figure.get_suptitle() == "a title"
    assert not pyplot.get_fignums()


def test_every_map_has_its_own_scale_and_it_is_said() -> None:
    maps = {"one": np.stack([np.linspace(0, 1, 24), np.linspace(0, 6, 24) ** 2]).reshape(2, 4, 6), "two": -np.eye(4, 6)}
    _, axes = draw({"one": maps["one"], "two": [maps["two"], 50 * maps["two"]]})
    assert [panel.images[-1].get_clim() for row in axes for panel in row[1:]] == [(0, 1), (-1, 1), (0, 36), (-50, 50)]
    assert [ticks(panel) for row in axes for panel in row[1:]] == [
        ["0", "0.5", "1"],
        ["−1", "0", "1"],
        ["0", "18", "36"],
        ["−50", "0", "50"],
    ]
    assert axes[-1][0].get_xlabel() == "Every map has its\nown colour scale."


@pytest.mark.parametrize("difference", [0, 1e-6, 0.0002])
def test_map_with_little_difference_is_in_the_middle_of_its_colours(difference: float) -> None:
    values = np.linspace(0.5 - difference, 0.5 + difference, 24)
    _, axes = draw({"one": values.reshape(1, 4, 6)}, PHOTOS[:1])
    assert ticks(axes[0][1]) == ["0", "0.5", "1"]


def test_colour_bar_of_an_overlay_is_in_full_strength() -> None:
    _, axes = draw()
    image = axes[0][1].images[-1]
    assert image.get_alpha() == pytest.approx(0.8 * image.norm(image.get_array()))
    assert image.colorbar.solids.get_alpha() == 1
    assert image.get_cmap().name == "viridis"
    assert axes[0][2].images[-1].get_cmap().name == "RdBu_r"


def test_drawn_like_one_attribution() -> None:
    _, axes = draw(alpha_overlay=0.7, cmap="magma")
    for index, photo in enumerate(PHOTOS):
        for panel, maps in zip(axes[index][1:], MAPS.values(), strict=True):
            _, (_, _, overlay) = visualize_attribution(
                maps[index], photo, alpha_overlay=0.7, cmap="magma", use_pyplot=False
            )
            assert len(panel.images) == len(overlay.images) == 2
            for image, expected in zip(panel.images, overlay.images, strict=True):
                np.testing.assert_array_equal(image.get_array(), expected.get_array())
                assert image.get_clim() == expected.get_clim()
                np.testing.assert_array_equal(image.get_alpha(), expected.get_alpha())
                assert image.cmap.name == expected.cmap.name


def test_heat_map_alone() -> None:
    _, axes = draw(method="heat_map")
    for row in axes:
        for panel in row[1:]:
            (image,) = panel.images
            assert image.get_alpha() is None


def test_label_of_each_method() -> None:
    _, axes = draw(label={"GMAR": "share", "nothing": "no"}, note={"Occlusion": "One at a time."}, cmap="PiYG")
    assert [[bar(panel).get_xlabel() for panel in row[1:]] for row in axes] == 2 * [["share", "One at a time."]]


def test_label_of_maps_of_patches_and_of_pixels() -> None:
    _, axes = draw(cmap="PiYG", note="Says little.")
    texts = ["relevance per patch\nSays little.", "attribution per pixel\nSays little."]
    assert [[bar(panel).get_xlabel() for panel in row[1:]] for row in axes] == 2 * [texts]


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
def test_forms_of_maps_and_images(attributions: Any, images: Any) -> None:
    (_, axes), (_, expected) = draw(attributions, images), draw()
    for panels, others in zip(axes, expected, strict=True):
        for panel, other in zip(panels, others, strict=True):
            for image, expected_image in zip(panel.images, other.images, strict=True):
                assert np.asarray(image.get_array()) == pytest.approx(np.asarray(expected_image.get_array()), abs=1)


@pytest.mark.parametrize(
    "image", [PHOTOS[0], Image.fromarray(PHOTOS[0]), torch.from_numpy(PHOTOS[0]).movedim(-1, 0), PHOTOS[0][..., 0]]
)
def test_one_image_as_it_is(image: Any) -> None:
    _, axes = draw({name: maps[0] for name, maps in MAPS.items()}, image)
    assert [[panel.get_title() for panel in row] for row in axes] == [["photo", "GMAR", "Occlusion"]]
    assert np.asarray(axes[0][2].images[-1].get_array()) == pytest.approx(MAPS["Occlusion"][0])


@pytest.mark.parametrize("methods", [1, 2, 5, 6, 8])
@pytest.mark.parametrize("shape", [(1, 32, 48), (1, 64, 16), (2, 32, 32)])
def test_nothing_overlaps(methods: int, shape: tuple[int, int, int]) -> None:
    names = [f"{LONG[index % len(LONG)]} {index}" for index in range(methods)]
    values = [10.0 ** (index - 5) * RNG.standard_normal(shape) for index in range(methods)]
    note = "Says nothing of what several patches do together."
    title = "photo.jpg: " + "a synonym of costs $5 and $6, " * 8
    label = "relevance per patch, % of all tokens"
    figure, axes = draw(
        dict(zip(names, values, strict=True)), np.zeros((*shape, 3)), title=title, label=label, note=note
    )
    renderer = figure.canvas.get_renderer()  # type: ignore[attr-defined]
    texts = [figure._suptitle, axes[-1][0].xaxis.label]  # type: ignore[attr-defined]
    for panel in (panel for row in axes for panel in row):
        texts.append(panel.title)
        if panel is not axes[0][0] and len(panel.images) == 2:
            texts += [*bar(panel).get_xticklabels(), bar(panel).xaxis.label]
    panels = [panel for row in axes for panel in row]
    bars = [bar(panel) for panel in panels if len(panel.images) == 2]
    boxes = [text.get_window_extent(renderer) for text in texts if text.get_text()]
    boxes += [axis.get_window_extent(renderer) for axis in (*panels, *bars)]
    for one, other in combinations(boxes, 2):
        wide = min(one.x1, other.x1) - max(one.x0, other.x0)
        high = min(one.y1, other.y1) - max(one.y0, other.y0)
        assert wide <= 1 or high <= 1
    for box in boxes:
        assert box.x0 >= -1
        assert box.x1 <= figure.bbox.x1 + 1
        assert box.y0 >= -1
        assert box.y1 <= figure.bbox.y1 + 1


def test_many_methods_of_one_image_take_several_rows() -> None:
    figure, axes = draw({str(index): PHOTOS[0, ..., 0] / 255 for index in range(8)}, PHOTOS[0])
    assert [panel.get_title() for panel in axes[0]] == ["photo", *map(str, range(8))]
    assert figure.axes == axes[0]
    assert len({round(panel.get_position().y0, 2) for panel in axes[0]}) == 2
    assert figure.get_figwidth() < 15


def test_draws_in_given_axes() -> None:
    figure, axes = pyplot.subplots(2, 3)
    drawn, rows = visualize_comparison(MAPS, PHOTOS, plt_fig_axis=(figure, axes))
    assert drawn is figure
    assert rows == [list(row) for row in axes]
    with pytest.raises(ValueError, match=r"a figure and 6 of its axes\. Got 3 axes instead"):
        visualize_comparison(MAPS, PHOTOS, plt_fig_axis=(figure, axes[0]))


def test_pyplot_shows_the_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    monkeypatch.setattr(pyplot, "show", lambda: calls.append(pyplot.get_fignums()))
    visualize_comparison(MAPS, PHOTOS)
    assert calls == [[1]]


@pytest.mark.parametrize(
    ("attributions", "images", "message"),
    [
        ({}, PHOTOS, r"attributions must hold the maps of at least one method\. Got none instead"),
        (MAPS, [], r"images must be at least one image\. Got none instead"),
        (MAPS, PHOTOS[:1], r"attributions\['GMAR'\] must hold one map per image, 1\. Got 2 instead"),
        ({"a": np.ones((2, 5, 6))}, PHOTOS, r"attributions\['a'\] must have the height .*Got shape \(5, 6\) instead"),
        ({"a": np.full((2, 4, 6), np.inf)}, PHOTOS, r"attributions\['a'\] must be finite\. Got NaN or infinity"),
        ({"a": np.ones((1, 4, 6))}, PHOTOS[0], r"Got shape \(1, 4, 6\) instead\. Pass one example"),
        (MAPS, PHOTOS / 100, r"image must hold integers from 0 to 255 or floats from 0 to 1"),
    ],
)
def test_values_that_do_not_fit(attributions: Any, images: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        draw(attributions, images)


@pytest.mark.parametrize(
    ("attributions", "images", "message"),
    [
        (MAPS["GMAR"], PHOTOS, r"must be a mapping from method names to maps\. Got ndarray instead"),
        ({"a": 3}, PHOTOS, r"attributions\['a'\] must be a sequence, tensor or array of maps\. Got int instead"),
        ({"a": [[1.0], [2.0]]}, PHOTOS, r"attributions\['a'\] must be a tensor or array of numbers\. Got list instead"),
        (MAPS, "photo.jpg", r"image must be a tensor or array of numbers\. Got str instead"),
    ],
)
def test_wrong_types(attributions: Any, images: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        draw(attributions, images)


def test_method_that_is_none() -> None:
    with pytest.raises(ValueError, match=r"method must be one of \['blended_heat_map', 'heat_map'\]\. Got 'masked"):
        draw(method="masked_image")
