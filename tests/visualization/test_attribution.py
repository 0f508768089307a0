"""The picture shows the photo as it is and the map over it, with the values of its colours."""

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib import pyplot
from matplotlib.backends.backend_agg import FigureCanvasAgg
from pictures import shown, ticks
from PIL import Image

from captum_gmar.visualization import overlay_attribution, visualize_attribution
from captum_gmar.visualization._heatmap import outline_box, outline_region

PHOTO = np.random.default_rng(0).integers(0, 256, (32, 48, 3), dtype=np.uint8)
MAP = np.random.default_rng(1).standard_normal((4, 6))


def draw(attribution, image=PHOTO, **options):
    figure, axes = visualize_attribution(attribution, image, use_pyplot=False, **options)
    FigureCanvasAgg(figure).draw()
    return figure, axes


def test_photo_patches_and_smooth_map():
    figure, axes = draw(MAP, title="a title", label="what, unit")
    assert [panel.get_title() for panel in axes] == ["photo", "patches", "smooth"]
    assert figure.get_suptitle() == "a title"
    for panel, smooth in zip(axes[1:], (False, True), strict=True):
        np.testing.assert_array_equal(shown(panel), np.asarray(overlay_attribution(MAP, PHOTO, smooth=smooth)))
    np.testing.assert_array_equal(shown(axes[0]), PHOTO)
    assert axes[1].get_xlabel() == "what, unit\norange: for, blue: against"
    assert not pyplot.get_fignums()


def test_a_map_of_pixels_has_one_panel():
    _, axes = draw(torch.rand(3, 32, 48) - 0.5)
    assert [panel.get_title() for panel in axes] == ["photo", "map"]
    assert axes[1].get_xlabel() == "attribution per pixel\norange: for, blue: against"


@pytest.mark.parametrize(
    ("values", "text"),
    [
        (np.eye(4, 6), "relevance per patch"),
        (-np.eye(4, 6), "relevance per patch\norange: for, blue: against"),
        (np.eye(4, 6) + 1, "relevance per patch\nshown above its least, 1"),
        (np.eye(32, 48), "attribution per pixel"),
    ],
)
def test_what_stands_below_the_map(values, text):
    for note in (None, "Says little."):
        assert draw(values, note=note)[1][1].get_xlabel() == "\n".join(filter(None, [text, note]))


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        (np.linspace(0.1, 1, 24) ** 2, ["0", "0.5", "1"]),
        (np.linspace(-1, 0.2, 24), ["−1", "0", "1"]),
        (np.linspace(0.4, 1, 24), ["0.4", "0.75", "1.1"]),
        (np.append(np.linspace(-1, 1, 63), 20), ["−1", "0", "≥ 1"]),
        (np.append(np.linspace(-1, 1, 63), -20), ["≤ −1", "0", "1"]),
        (np.zeros(24), ["0"]),
    ],
)
def test_values_below_the_colour_bar(values, labels):
    assert ticks(draw(values.reshape(4, -1))[1][1]) == labels


def test_the_colour_bar_has_the_colours_of_the_map():
    _, axes = draw(np.array([[-1.0, 0.0, 1.0]]), np.zeros((10, 30)))
    bar, pixels = (np.asarray(image.get_array())[0].astype(int) for image in axes[1].images[::-1])
    for place, pixel in ((0, 5), (-1, 25)):  # on another ground, so less alike than the hues are to one another
        assert np.abs(bar[place] - pixels[pixel]).max() < 30
    assert np.ptp(bar[len(bar) // 2]) <= 2


def test_a_photo_of_its_own_shape_with_its_crop_framed():
    photo, crop = Image.fromarray(PHOTO).resize((300, 500)), (19.0, 31.0, 281.0, 469.0)
    _, axes = draw(MAP, photo, crop=crop)
    assert shown(axes[0]).shape == (500, 300, 3)
    np.testing.assert_array_equal(shown(axes[1]), np.asarray(overlay_attribution(MAP, photo, crop=crop)))


def test_a_large_photo_is_drawn_no_larger_than_a_panel_shows():
    photo, crop = Image.fromarray(PHOTO).resize((2400, 1600)), (400, 0, 2000, 1600)
    _, axes = draw(MAP, photo, crop=crop, box=(600, 300, 1200, 900))
    small = photo.resize((930, 620))
    assert shown(axes[0]).shape == (620, 930, 3)
    expected = overlay_attribution(MAP, small, crop=tuple(np.array(crop) * 930 / 2400))
    expected = outline_box(expected, (232.5, 116.25, 465, 348.75))
    assert np.abs(shown(axes[1]).astype(int) - np.asarray(expected)).mean() < 1  # but for the way of resizing


def test_a_box_and_a_region_are_framed_in_every_panel():
    cells = np.zeros((4, 6), bool)
    cells[1:3, 2:4] = True
    _, framed = draw(MAP, box=(16, 8, 32, 24))
    _, outlined = draw(MAP, region=torch.from_numpy(cells))
    mask = cells.repeat(8, 0).repeat(8, 1)
    for plain, with_box, with_region in zip(draw(MAP)[1], framed, outlined, strict=True):
        image = Image.fromarray(shown(plain))
        np.testing.assert_array_equal(shown(with_box), np.asarray(outline_box(image, (16, 8, 32, 24))))
        np.testing.assert_array_equal(shown(with_region), np.asarray(outline_region(image, mask)))
        assert (shown(with_box)[8, 16:32] == 255).all()


def test_a_region_lies_in_the_crop():
    _, axes = draw(MAP, crop=(8, 8, 40, 24), region=np.array([[True, False]]))
    white = (shown(axes[0]) == 255).all(-1)
    rows, columns = white.nonzero()
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (8, 23, 8, 23)


@pytest.mark.parametrize("region", [np.ones((4, 6)), np.ones((1, 4, 6), bool)])
def test_a_region_that_is_none(region):
    with pytest.raises(ValueError, match=r"region must be boolean \(rows, columns\), but got "):
        draw(MAP, region=region)


@pytest.mark.parametrize("corners", [3, (1, 2, 3), ("left", 2, 3, 4), (5, 5, 2, 9)])
@pytest.mark.parametrize("name", ["box", "crop"])
def test_a_box_is_four_numbers(name, corners):
    with pytest.raises(ValueError, match=rf"{name} must be left, top, right and bottom, in pixels, but got"):
        draw(MAP, **{name: corners})


def test_texts_may_be_numbers():
    figure, axes = draw(np.eye(4, 6), title=3, label=4, note=5)
    assert (figure.get_suptitle(), axes[1].get_xlabel()) == ("3", "4\n5")


def test_photo_and_map_have_one_orientation_whatever_the_users_settings():
    photo = np.zeros((32, 32, 3), np.uint8)
    photo[:8, 24:] = 255
    with matplotlib.rc_context({"image.origin": "lower", "image.aspect": "auto"}):
        figure, axes = draw(photo[..., 0] / 255, photo)
    pixels = np.asarray(figure.canvas.buffer_rgba())
    for panel in axes:
        x0, y0, x1, y1 = panel.get_window_extent().extents
        corner = pixels[pixels.shape[0] - int(y1) + 12, int(x1) - 12, :3].astype(int)
        opposite = pixels[pixels.shape[0] - int(y0) - 12, int(x0) + 12, :3].astype(int)
        assert np.abs(corner - opposite).sum() > 150


@pytest.mark.parametrize("seed", range(0, 20, 3))
def test_a_map_of_any_size_of_numbers_can_be_drawn(seed):
    _, axes = draw(10.0 ** (seed - 10) * np.random.default_rng(seed).random((4, 6)))
    assert len(set(ticks(axes[1]))) == 3


@pytest.mark.parametrize("shape", [(400, 100), (100, 400), (64, 64)])
def test_panels_have_the_shape_of_the_photo(shape):
    for panel in draw(np.random.rand(*shape), np.zeros((*shape, 3)))[1]:
        width, height = panel.get_window_extent().size
        assert height / width == pytest.approx(shape[0] / shape[1], rel=0.02)


def test_draws_in_given_axes():
    figure, axes = pyplot.subplots(1, 3)
    assert visualize_attribution(MAP, PHOTO, plt_fig_axis=(figure, axes)) == (figure, list(axes))
    with pytest.raises(ValueError, match=r"a figure and 3 of its axes, but got 2 axes"):
        visualize_attribution(MAP, PHOTO, plt_fig_axis=(figure, axes[:2]))
    with pytest.raises(TypeError, match=r"plt_fig_axis must be a figure and its axes, a tuple, but got <?Figure"):
        visualize_attribution(MAP, PHOTO, plt_fig_axis=figure)


def test_pyplot_shows_the_figure(monkeypatch):
    calls = []
    monkeypatch.setattr(pyplot, "show", lambda: calls.append(pyplot.get_fignums()))
    visualize_attribution(MAP, PHOTO)
    assert calls == [[1]]


def test_image_processor_gives_the_image(shared):
    from transformers import AutoImageProcessor

    processor = AutoImageProcessor.from_pretrained(shared / "models" / "deit-tiny-patch16-224")
    pixels = processor(Image.fromarray(PHOTO), do_normalize=False, do_rescale=False)["pixel_values"][0]
    assert shown(draw(np.random.rand(14, 14), pixels)[1][0]).shape == (224, 224, 3)
