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
from PIL import Image

from captum_gmar import visualize_attribution

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


def test_three_panels_and_a_labelled_colour_bar() -> None:
    figure, axes = draw(np.random.rand(32, 48), title="a title", label="what, unit")
    assert [panel.get_title() for panel in axes] == ["photo", "relevance", "overlay"]
    assert figure.get_suptitle() == "a title"
    assert colour_bar(axes).ax.get_ylabel() == "what, unit"
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
    assert axes[2].images[0].get_clim() == (0, 255)


def test_heat_map_and_colour_bar_hold_the_values() -> None:
    values = np.random.default_rng(1).uniform(0.9, 1, (32, 48))
    _, axes = draw(values)
    assert shown(axes) == pytest.approx(values)
    for panel in axes[1:]:
        assert panel.images[-1].get_clim() == (values.min(), values.max())
    assert (colour_bar(axes).vmin, colour_bar(axes).vmax) == (values.min(), values.max())


def test_every_colour_is_used_between_smallest_and_largest() -> None:
    _, axes = draw(np.linspace(0.9, 1, 32 * 48).reshape(32, 48))
    image = axes[1].images[0]
    colours = image.to_rgba(np.asarray(image.get_array()))
    assert colours[0, 0] == pytest.approx(image.cmap(0.0))
    assert colours[-1, -1] == pytest.approx(image.cmap(1.0))


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


@pytest.mark.parametrize("value", [0.0, 0.005, -3.0])
def test_flat_map_has_one_colour_in_the_middle(value: float) -> None:
    noise = 1e-8 * np.random.default_rng(0).standard_normal((4, 6)) * value
    _, axes = draw(value + noise)
    image = axes[1].images[0]
    colours = image.to_rgba(np.asarray(image.get_array()), bytes=True)
    assert (colours == colours[0, 0]).all()
    assert image.norm(value) == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("seed", range(20))
def test_any_map_can_be_drawn(seed: int) -> None:
    draw(10.0 ** (seed - 10) * np.random.default_rng(seed).random((32, 48)))


@pytest.mark.parametrize(("low", "high"), [(-1, 0.2), (-0.2, 1), (-1, -0.5), (-1e-3, 1)])
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
    assert image.get_clim() == (values.min(), 1)
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
    assert axes[1].get_window_extent().x1 <= bar.x0
    assert bar.x1 <= axes[2].get_window_extent().x0


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
