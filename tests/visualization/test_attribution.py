"""The picture shows the real values, in the place where they belong, over the photo that the model saw."""

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib import pyplot
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.testing import assert_allclose
from PIL import Image

from captum_gmar import visualize_attribution
from captum_gmar.visualization._style import font_with

PHOTO = np.random.default_rng(0).integers(0, 256, (32, 48, 3), dtype=np.uint8)


@pytest.fixture(autouse=True)
def _without_windows() -> Iterator[None]:
    before = matplotlib.get_backend()
    pyplot.switch_backend("agg")
    yield
    pyplot.close("all")
    pyplot.switch_backend(before)


def draw(attribution: Any, image: Any = PHOTO, **options: Any) -> tuple[Figure, Any]:
    figure, axes = visualize_attribution(attribution, image, use_pyplot=False, **options)
    FigureCanvasAgg(figure).draw()
    return figure, axes


def shown(axes: Any) -> np.ndarray:
    """The values of the heat map."""
    return np.asarray(axes[1].images[0].get_array())


def colour_bar(axes: Any) -> Any:
    return axes[1].images[0].colorbar


def ticks(axes: Any) -> list[str]:
    return [label.get_text() for label in colour_bar(axes).ax.get_xticklabels()]


def test_three_panels_and_a_labelled_colour_bar() -> None:
    figure, axes = draw(np.random.rand(32, 48), title="a title", label="what, unit")
    assert [panel.get_title() for panel in axes] == ["photo", "relevance", "overlay"]
    assert figure.get_suptitle() == "a title"
    assert colour_bar(axes).ax.get_xlabel() == "what, unit"
    assert not pyplot.get_fignums()


def test_photo_is_the_photo() -> None:
    _, axes = draw(np.random.rand(32, 48))
    assert np.abs(np.asarray(axes[0].images[0].get_array()).astype(int) - PHOTO).max() <= 1


@pytest.mark.parametrize(
    "image",
    [
        Image.fromarray(PHOTO),
        torch.from_numpy(PHOTO).movedim(-1, 0),
        torch.from_numpy(PHOTO).movedim(-1, 0) / 255,
        PHOTO / 255,
        np.moveaxis(PHOTO, -1, 0),
    ],
)
def test_every_kind_of_image_is_the_same_photo(image: Any) -> None:
    _, axes = draw(np.random.rand(32, 48), image)
    assert np.abs(np.asarray(axes[0].images[0].get_array()).astype(int) - PHOTO).max() <= 1


def test_dark_photo_stays_dark() -> None:
    _, axes = draw(np.random.rand(32, 48), np.ones((32, 48, 3), np.uint8))
    assert np.asarray(axes[0].images[0].get_array()).max() <= 1
    assert np.asarray(axes[2].images[0].get_array()).max() <= 1


def test_heat_map_and_colour_bar_hold_the_values() -> None:
    values = np.random.default_rng(1).uniform(0.9, 1, (32, 48))
    _, axes = draw(values)
    assert shown(axes) == pytest.approx(values)
    for panel in axes[1:]:
        assert panel.images[-1].get_clim() == (0, pytest.approx(2 * values.mean()))
    assert (colour_bar(axes).vmin, colour_bar(axes).vmax) == axes[1].images[0].get_clim()


def test_colours_go_from_zero_to_the_largest_value() -> None:
    _, axes = draw(np.linspace(0.1, 1, 32 * 48).reshape(32, 48) ** 2)
    image = axes[1].images[0]
    colours = image.to_rgba(np.asarray(image.get_array()))
    assert colours[0, 0] == pytest.approx(image.cmap(0.01))
    assert colours[-1, -1] == pytest.approx(image.cmap(1.0))
    assert ticks(axes) == ["0", "0.5", "1"]


def test_flat_map_looks_flat() -> None:
    """As those of a random model do: 4.39 to 4.44 % of each patch. No two colours are further apart than neighbours."""
    _, axes = draw(np.random.default_rng(0).uniform(4.39, 4.44, (4, 6)))
    for panel in axes[1:]:
        image = panel.images[-1]
        colours = image.to_rgba(np.asarray(image.get_array()), bytes=True).astype(int)
        assert np.ptp(colours[..., :3], (0, 1)).max() <= 4
    assert np.ptp(axes[2].images[1].get_alpha()) < 0.01


def test_opacity_follows_relevance_over_the_photo_in_its_colours() -> None:
    values = np.array([[0.0, 0.25], [0.5, 1.0]])
    _, axes = draw(values, alpha_overlay=0.6)
    photo, overlay = axes[2].images
    assert np.abs(np.asarray(photo.get_array()).astype(int) - PHOTO).max() <= 1
    assert overlay.get_alpha() == pytest.approx(0.6 * values.repeat(16, 0).repeat(24, 1))
    signed = draw(values - 0.5)[1][2].images[1].get_alpha()
    assert signed == pytest.approx(0.8 * np.abs(2 * values - 1).repeat(16, 0).repeat(24, 1))


def test_one_patch_that_outweighs_the_rest_does_not_make_it_pale() -> None:
    values = np.linspace(-1, 1, 64).reshape(8, 8)
    values[3, 3] = 20
    _, axes = draw(values, np.zeros((32, 32)))
    assert axes[1].images[0].get_clim() == (-1, 1)
    assert ticks(axes) == ["−1", "0", "≥ 1"]
    assert ticks(draw(-values, np.zeros((32, 32)))[1]) == ["≤ −1", "0", "1"]
    _, axes = draw(values, np.zeros((32, 32)), outlier_perc=0)
    assert axes[1].images[0].get_clim() == (-20, 20)
    assert ticks(axes) == ["−20", "0", "20"]
    with pytest.raises(ValueError, match=r"outlier_perc must be at least 0 and less than 100\. Got 100 instead"):
        draw(values, np.zeros((32, 32)), outlier_perc=100)


def test_many_large_values_are_no_outliers() -> None:
    values = np.ones((10, 10))
    values[0] = 20
    assert draw(values, np.zeros((30, 30)))[1][1].images[0].get_clim() == (0, 20)


@pytest.mark.parametrize(
    ("values", "cmap", "text"),
    [
        (np.eye(4, 6), None, "relevance per patch"),
        (-np.eye(4, 6), None, "relevance per patch\nred: for, blue: against"),
        (-np.eye(4, 6), "PiYG", "relevance per patch"),
        (np.eye(32, 48), None, "attribution per pixel"),
    ],
)
def test_what_stands_below_the_map(values: Any, cmap: Any, text: str) -> None:
    for note in (None, "Says little."):
        _, axes = draw(values, cmap=cmap, note=note)
        assert colour_bar(axes).ax.get_xlabel() == "\n".join(filter(None, [text, note]))


def test_channels_are_summed() -> None:
    values = torch.randn(3, 32, 48, requires_grad=True)
    expected = values.detach().sum(0).numpy()
    assert shown(draw(values)[1]) == pytest.approx(expected, abs=1e-5)
    assert shown(draw(values.detach().movedim(0, -1).numpy())[1]) == pytest.approx(expected, abs=1e-5)


def test_patches_lie_over_their_pixels() -> None:
    relevance = torch.arange(24.0).reshape(4, 6)
    _, axes = draw(relevance)
    assert shown(axes).shape == (32, 48)
    assert (shown(axes)[8:16, 40:48] == 11).all()
    for panel in axes[1:]:
        assert panel.images[-1].get_extent() == axes[0].images[0].get_extent()


def test_photo_and_map_have_one_orientation() -> None:
    photo = np.zeros((32, 32, 3), np.uint8)
    photo[:8, 24:] = 255
    figure, axes = draw(photo[..., 0] / 255, photo)
    pixels = np.asarray(figure.canvas.buffer_rgba())  # type: ignore[attr-defined]
    for panel in axes:
        x0, y0, x1, y1 = panel.get_window_extent().extents
        corner = pixels[pixels.shape[0] - int(y1) + 12, int(x1) - 12, :3].astype(int)
        opposite = pixels[pixels.shape[0] - int(y0) - 12, int(x0) + 12, :3].astype(int)
        assert corner.sum() > opposite.sum() + 200


@pytest.mark.parametrize(("value", "place"), [(0.0, 0), (0.005, 0.5), (-3.0, 0.25)])
def test_flat_map_has_a_colour_half_way_from_zero(value: float, place: float) -> None:
    noise = 1e-8 * np.random.default_rng(0).standard_normal((4, 6)) * value
    _, axes = draw(value + noise)
    image = axes[1].images[0]
    colours = image.to_rgba(np.asarray(image.get_array()), bytes=True).astype(int)
    assert np.ptp(colours, (0, 1)).max() <= 4  # at most two that are neighbours
    assert image.norm(value) == pytest.approx(place, abs=1e-6)


def test_nothing_is_drawn_over_the_photo_where_all_is_zero() -> None:
    _, axes = draw(np.zeros((4, 6)))
    assert not axes[2].images[1].get_alpha().any()
    assert ticks(axes) == ["0"]


@pytest.mark.parametrize("seed", range(20))
def test_any_map_can_be_drawn(seed: int) -> None:
    draw(10.0 ** (seed - 10) * np.random.default_rng(seed).random((32, 48)))


@pytest.mark.parametrize(("low", "high"), [(-1, 0.2), (-0.2, 1), (-1, 0), (-1e-3, 1)])
def test_map_with_negative_values_has_its_colours_around_zero(low: float, high: float) -> None:
    values = np.linspace(low, high, 32 * 48).reshape(32, 48)
    _, axes = draw(values)
    assert shown(axes) == pytest.approx(values)
    for panel in axes[1:]:
        assert panel.images[-1].get_clim() == (-1, 1)
    image = axes[1].images[0]
    red, _, blue, _ = np.moveaxis(image.to_rgba(values), -1, 0)
    assert (red > blue)[values > 0.02].all()
    assert (blue > red)[values < -0.02].all()


def test_rounding_below_zero_is_no_negative_value() -> None:
    values = np.linspace(-1e-6, 1, 32 * 48).reshape(32, 48)
    image = draw(values)[1][1].images[0]
    assert image.get_clim() == (0, pytest.approx(1))
    assert image.cmap.name == "viridis"


def test_colour_map_of_the_user() -> None:
    for values in (np.random.rand(4, 6), np.random.rand(4, 6) - 0.5):
        assert [panel.images[-1].cmap.name for panel in draw(values, cmap="PiYG")[1][1:]] == 2 * ["PiYG"]


def test_long_title_is_wrapped_and_nothing_overlaps() -> None:
    figure, axes = draw(np.random.rand(32, 48), title="file.jpg: " + "a synonym of costs $5 and $6, " * 12)
    assert figure.get_suptitle().count("\n") >= 3
    renderer = figure.canvas.get_renderer()  # type: ignore[attr-defined]
    title = figure._suptitle.get_window_extent(renderer)  # type: ignore[attr-defined]
    boxes = [panel.title.get_window_extent(renderer) for panel in axes]
    assert title.x0 >= 0
    assert title.x1 <= figure.bbox.x1
    assert title.y1 <= figure.bbox.y1
    assert all(box.y1 <= title.y0 for box in boxes)
    assert all(left.x1 < right.x0 for left, right in pairwise(boxes))
    bar = colour_bar(axes).ax.get_tightbbox(renderer)
    panel = axes[1].get_window_extent()
    assert panel.y0 >= bar.y1
    assert bar.x0 >= panel.x0 - 1
    assert bar.x1 <= panel.x1 + 1


def test_class_and_its_number_stay_on_one_line() -> None:
    for width in range(40):
        title = draw(np.eye(4, 6), title=f"{'x' * width} tiger, Panthera tigris (class 292) {'y' * 60}")[
            0
        ].get_suptitle()
        assert "(class 292)" in title


def test_a_script_may_draw_any_number_of_figures() -> None:
    before = pyplot.figure()
    figures = [visualize_attribution(np.eye(4, 6), PHOTO)[0] for _ in range(25)]
    assert pyplot.get_fignums() == [before.number, pyplot.figure(figures[-1]).number]  # for pyplot.savefig


@pytest.mark.parametrize("letters", ["虎猫", "тигр", "نمر", "🐅", "虎 and 🐅"])
def test_names_in_any_script(letters: str) -> None:
    """Without warnings, which are errors here: from a font that has the letters, or as one empty box for each."""
    figure, axes = draw(np.eye(4, 6), title=f"{letters}.jpg", label=letters)
    for text, whole in ((figure.get_suptitle(), f"{letters}.jpg"), (colour_bar(axes).ax.get_xlabel(), letters)):
        assert len(text) == len(whole)
        assert all(
            drawn == letter or (drawn == "□" and not font_with(letter))
            for drawn, letter in zip(text, whole, strict=True)
        )


def test_a_font_that_has_the_letters_is_taken() -> None:
    """Matplotlib brings along others besides DejaVu Sans, with letters that that lacks: modifiers, and of APL."""
    figure, _ = draw(np.eye(4, 6), title="tiger ˯ ⌶")
    assert figure.get_suptitle() == "tiger ˯ ⌶"
    _, *others = figure._suptitle.get_fontfamily()  # type: ignore[attr-defined]
    assert others == list(dict.fromkeys([font_with("˯"), font_with("⌶")]))


def test_readable_on_a_dark_ground() -> None:
    with pyplot.style.context("dark_background"):
        figure, axes = draw(np.eye(4, 6), title="a title")
        pixels = np.asarray(figure.canvas.buffer_rgba())  # type: ignore[attr-defined]
    assert (pixels[0, 0, :3] == 0).all()
    assert figure._suptitle.get_color() == axes[0].title.get_color() == "white"  # type: ignore[attr-defined]


def test_a_users_settings_do_not_turn_the_picture() -> None:
    with matplotlib.rc_context({"image.origin": "lower", "image.aspect": "auto", "image.interpolation": "bicubic"}):
        _, axes = draw(np.eye(4, 6))
    assert {image.origin for panel in axes for image in panel.images} == {"upper"}
    assert axes[1].images[0].get_interpolation() == "nearest"


@pytest.mark.parametrize("shape", [(400, 100), (100, 400), (64, 64)])
def test_panels_have_one_size_in_any_shape(shape: tuple[int, int]) -> None:
    _, axes = draw(np.random.rand(*shape), np.zeros((*shape, 3)))
    sizes = [panel.get_window_extent().size for panel in axes]
    for size in sizes:
        assert size == pytest.approx(sizes[0], rel=0.01)
        assert size[1] / size[0] == pytest.approx(shape[0] / shape[1], rel=0.02)


def test_draws_in_given_axes() -> None:
    figure, axes = pyplot.subplots(1, 3)
    assert visualize_attribution(np.random.rand(4, 6), PHOTO, plt_fig_axis=(figure, axes)) == (figure, list(axes))
    with pytest.raises(ValueError, match=r"a figure and 3 of its axes\. Got 2 axes instead"):
        visualize_attribution(np.random.rand(4, 6), PHOTO, plt_fig_axis=(figure, axes[:2]))


def test_pyplot_shows_the_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    monkeypatch.setattr(pyplot, "show", lambda: calls.append(pyplot.get_fignums()))
    visualize_attribution(np.random.rand(4, 6), PHOTO)
    assert calls == [[1]]


def test_image_processor_gives_the_image(shared: Path) -> None:
    from transformers import AutoImageProcessor

    processor = AutoImageProcessor.from_pretrained(shared / "models" / "deit-tiny-patch16-224")
    pixels = processor(Image.fromarray(PHOTO), do_normalize=False, do_rescale=False)["pixel_values"][0]
    _, axes = draw(np.random.rand(14, 14), pixels)
    assert axes[0].images[0].get_array().shape == (224, 224, 3)


@pytest.mark.parametrize(
    ("attribution", "message"),
    [
        (np.ones((5, 6)), r"32x48, or be \(rows, columns\).*Got shape \(5, 6\) instead"),
        (np.ones((1, 3, 32, 48)), r"Got shape \(1, 3, 32, 48\) instead"),
        (np.ones((3, 48, 32)), r"Got shape \(3, 48, 32\) instead"),
        (np.ones((0, 6)), r"Got shape \(0, 6\) instead"),
        (np.full((4, 6), np.nan), r"must be finite\. Got NaN"),
    ],
)
def test_attribution_that_does_not_fit(attribution: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        draw(attribution)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((1, 3, 32, 48)), r"must be one image.*Got shape \(1, 3, 32, 48\)"),
        (np.zeros((32, 48, 2)), r"Got shape \(32, 48, 2\)"),
        (PHOTO / 100 - 1, r"must hold integers from 0 to 255 or floats from 0 to 1\. Got values from -1 to 1\.55"),
        (np.full((32, 48, 3), np.nan), r"Got values from nan"),
    ],
)
def test_image_that_does_not_fit(image: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        draw(np.ones((4, 6)), image)


def test_wrong_types() -> None:
    with pytest.raises(TypeError, match=r"image must be a tensor or array of numbers\. Got str instead"):
        draw(np.ones((4, 6)), "photo.jpg")
    with pytest.raises(TypeError, match=r"attribution must be a tensor or array of numbers\. Got list instead"):
        draw([[1.0]])


def test_a_box_is_framed_in_the_photo_and_the_overlay() -> None:
    photo = np.zeros((40, 60, 3))
    _, panels = visualize_attribution(np.ones((4, 6)), photo, box=(10, 5, 30, 25.5), use_pyplot=False)
    assert [len(panel.patches) for panel in panels] == [2, 0, 2]  # black, and white within
    corner, width, height = panels[2].patches[1].get_xy(), *panels[2].patches[1].get_bbox().size
    assert (*corner, width, height) == (9.5, 4.5, 20, 20.5)  # a pixel's middle is whole


@pytest.mark.parametrize("box", [3, (1, 2, 3), ("left", 2, 3, 4)])
def test_a_box_is_four_numbers(box: Any) -> None:
    with pytest.raises(ValueError, match=r"box must be left, top, right and bottom, in pixels. Got"):
        visualize_attribution(np.ones((4, 6)), np.zeros((40, 60, 3)), box=box, use_pyplot=False)


def test_texts_may_be_numbers() -> None:
    figure, panels = visualize_attribution(np.ones((4, 6)), PHOTO, title=3, label=4, note=5, use_pyplot=False)  # type: ignore[arg-type]
    assert figure.get_suptitle() == "3"
    assert panels[1].images[-1].colorbar.ax.get_xlabel() == "4\n5"


@pytest.mark.parametrize("kind", [np.asarray, torch.as_tensor])
def test_a_region_is_framed_in_the_photo_and_the_overlay(kind: Any) -> None:
    region = np.zeros((4, 6), dtype=bool)
    region[1:, 2:5] = True
    photo = np.zeros((40, 60, 3))
    _, panels = visualize_attribution(np.ones((4, 6)), photo, region=kind(region), use_pyplot=False)
    assert [len(panel.collections) for panel in panels] == [2, 0, 2]  # black, and white within
    corners = panels[2].collections[1].get_paths()[0].get_extents()
    assert_allclose((*corners.min, *corners.max), (19.5, 9.5, 49.5, 39.5))  # a pixel's middle is whole
    assert [panel.get_xlim() for panel in panels] == [(-0.5, 59.5)] * 3
    visualize_attribution(np.ones((4, 6)), photo, region=kind(region & False), use_pyplot=False)
    with pytest.raises(ValueError, match=r"region must be boolean \(rows, columns\)\. Got float64 \(2, 2\) instead"):
        visualize_attribution(np.ones((4, 6)), photo, region=np.ones((2, 2)), use_pyplot=False)
