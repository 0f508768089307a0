"""Hand-worked pixels of maps over photos, and their scales."""

import numpy as np
import pytest
import torch
from PIL import Image

from captum_gmar.visualization import overlay_attribution
from captum_gmar.visualization._heatmap import FADE, FADE_UNSEEN, OPACITY, PAPER, heat_of, outline_region, photo_of
from captum_gmar.visualization._style import AGAINST, FOR

BLACK = Image.new("RGB", (8, 4))
GROUND, UNSEEN = round(FADE * PAPER), round(FADE_UNSEEN * PAPER)  # levels of grey that black fades to
PHOTO = np.random.default_rng(0).integers(0, 256, (32, 48, 3), dtype=np.uint8)


def overlay(values, photo=BLACK, **options):
    return np.asarray(overlay_attribution(np.asarray(values, float), photo, **options)).astype(int)


def mixed(hue, strength):
    """Return the colour of a hue over the ground, by hand."""
    opacity = OPACITY * strength
    return np.rint((1 - opacity) * GROUND + opacity * np.array(hue))


def scale_of(values, **options):
    """Return both ends of the scale."""
    heat = heat_of(np.asarray(values, float), BLACK, **options)
    return heat.low, heat.end


def test_opacity_follows_the_value_in_the_hue_of_its_sign():
    pixels = overlay([[0, 1, -1, 0.5], [-0.5, 0.25, 0, 0]])
    assert pixels.shape == (4, 8, 3)
    assert (pixels[0, 0] == GROUND).all()
    for place, hue, strength in (
        *(((0, 2), FOR, 1), ((0, 4), AGAINST, 1), ((1, 7), FOR, 0.5)),
        *(((2, 0), AGAINST, 0.5), ((3, 3), FOR, 0.25)),
    ):
        assert np.abs(pixels[place] - mixed(hue, strength)).max() <= 1, place
    assert (pixels[2:, 4:] == GROUND).all()


def test_the_photo_is_grey_and_fades_to_paper():
    photo = Image.new("RGB", (8, 4), (255, 0, 0))
    level = 0.299 * 255  # luma of red, ITU-R 601
    assert np.abs(overlay(np.zeros((2, 4)), photo) - ((1 - FADE) * level + FADE * PAPER)).max() <= 1


@pytest.mark.parametrize("size", [(500, 300), (37, 111), (3, 2)])
def test_the_overlay_is_as_large_as_the_photo(size):
    for smooth in (False, True):
        assert overlay_attribution(torch.rand(14, 14), Image.new("RGB", size), smooth=smooth).size == size


def test_patches_lie_over_their_pixels_of_a_photo_of_any_size():
    pixels = overlay([[0, 0, 1], [0, 0, 0]], Image.new("RGB", (30, 14)))
    red = (np.abs(pixels - mixed(FOR, 1)) <= 1).all(-1)
    assert red[:7, 20:].all()
    assert red.sum() == 7 * 10


def test_the_crop_is_framed_and_the_map_lies_in_it():
    pixels = overlay([[1, -1]], Image.new("RGB", (12, 8)), crop=(4, 2, 10, 6))
    assert np.abs(pixels[3:5, 5:7] - mixed(FOR, 1)).max() <= 1
    assert np.abs(pixels[3:5, 7:9] - mixed(AGAINST, 1)).max() <= 1
    white, black = ((pixels == level).all(-1) for level in (255, 0))
    edge = np.zeros((8, 12), bool)
    edge[2:6, 4:10] = True
    edge[3:5, 5:9] = False
    np.testing.assert_array_equal(white, edge)
    outer = np.zeros((8, 12), bool)
    outer[1:7, 3:11] = True
    outer[2:6, 4:10] = False
    np.testing.assert_array_equal(black, outer)
    assert (pixels[0] == UNSEEN).all()
    assert (pixels[:, :3] == UNSEEN).all()


def test_padding_beyond_the_photo_is_left_out():
    """A photo of 8×4 in the middle of a square of 8×8: its rows have the map's middle half."""
    pixels = overlay([[0.0], [1.0], [0.5], [0.0]], crop=(0, -2, 8, 6))
    assert np.abs(pixels[:2] - mixed(FOR, 1)).max() <= 1
    assert np.abs(pixels[2:] - mixed(FOR, 0.5)).max() <= 1


def test_the_whole_photo_has_no_frame():
    np.testing.assert_array_equal(overlay([[0, 1]], crop=(0, 0, 8, 4)), overlay([[0, 1]]))


@pytest.mark.parametrize("crop", [(8, 0, 12, 4), (2, 3, 2, 4), (0, -9, 8, -5)])
def test_a_crop_beside_the_photo(crop):
    with pytest.raises(ValueError, match=r"crop must be left, top, right and bottom .* 8x4 pixels, but got \("):
        overlay([[0, 1]], crop=crop)


def test_smooth_goes_straight_from_middle_to_middle():
    """Four pixels a patch: between middles at 1.5 and 5.5, values go in steps of 1/4, first 1/8 from the middle."""
    strengths = [0, 0, 0.125, 0.375, 0.625, 0.875, 1, 1]
    pixels = overlay([[0, 1]], smooth=True)
    assert np.abs(pixels - np.array([mixed(FOR, strength) for strength in strengths])).max() <= 1


def test_edges_of_places_are_white_within_and_black_around():
    region = np.zeros((5, 6), bool)
    region[1:4, 1:4] = True
    pixels = np.asarray(outline_region(Image.new("RGB", (6, 5), (9, 9, 9)), region))[..., 0]
    np.testing.assert_array_equal(
        pixels[:, :5], [[0] * 5, [0, 255, 255, 255, 0], [0, 255, 9, 255, 0], [0, 255, 255, 255, 0], [0] * 5]
    )
    assert (pixels[:, 5] == 9).all()


def test_the_scale_begins_at_zero_and_ends_at_the_largest_value():
    assert scale_of([[0.1, 0.3], [0.2, 1]]) == (0, 1)
    assert scale_of([[0.1, -0.3], [0.2, 0]]) == pytest.approx((-0.3, 0.3))
    assert scale_of([[0.5, -1e-6], [0, 1]]) == (0, 1)  # rounding


def test_a_map_that_is_nowhere_small_is_shown_above_its_least():
    values = np.array([[0.4, 0.5], [0.7, 1.0]])
    heat = heat_of(values, BLACK)
    assert (heat.low, heat.end) == (0.4, pytest.approx(0.4 + values.mean()))  # at least the mean long
    assert heat.zero_text == "shown above its least, 0.4"
    assert heat.strength == pytest.approx((values - 0.4) / values.mean())
    small = heat_of(values - 0.25, BLACK)  # 0.15 is less than a quarter of 0.75
    assert (small.low, small.end, small.zero_text) == (0, pytest.approx(2 * small.values.mean()), "")


@pytest.mark.parametrize("value", [1.0, 0.005, -3.0])
def test_a_map_whose_values_hardly_differ_looks_flat(value):
    noise = 0.01 * np.random.default_rng(0).uniform(-1, 1, (4, 6))
    strength = heat_of(value * (1 + noise), BLACK).strength
    assert np.ptp(strength) <= 0.021
    assert strength == pytest.approx(0 if value > 0 else -0.5, abs=0.03)


def test_nothing_is_drawn_where_all_is_zero():
    assert (overlay(np.zeros((2, 4))) == GROUND).all()
    assert heat_of(np.zeros((2, 4)), BLACK).ticks == (0,)


def test_one_patch_that_outweighs_the_rest_does_not_make_it_pale():
    values = np.linspace(-1, 1, 64).reshape(8, 8)
    values[3, 3] = 20
    assert scale_of(values) == (-1, 1)
    assert heat_of(values, BLACK).overflows == (False, True)
    assert heat_of(-values, BLACK).overflows == (True, False)
    assert scale_of(values, outlier_perc=0) == (-20, 20)
    with pytest.raises(ValueError, match=r"outlier_perc must be at least 0 and less than 100, but got 100"):
        scale_of(values, outlier_perc=100)
    many = np.ones((10, 10))
    many[0] = 20
    assert scale_of(many) == (0, 20)


def test_channels_are_summed():
    values, photo = torch.randn(3, 32, 48, requires_grad=True), Image.fromarray(PHOTO)
    expected = values.detach().sum(0).double()
    for form in (values, values.detach().movedim(0, -1).numpy()):
        heat = heat_of(form, photo)
        np.testing.assert_allclose(heat.values, expected, rtol=1e-5, atol=1e-6)
        assert heat.is_of_pixels
    assert not heat_of(np.eye(14), photo).is_of_pixels
    assert heat_of(np.eye(224), photo).is_of_pixels  # of the model's input


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
def test_every_kind_of_image_is_the_same_photo(image):
    np.testing.assert_array_equal(np.asarray(photo_of(image)), PHOTO)


def test_a_dark_photo_and_a_grey_one():
    assert np.asarray(photo_of(np.ones((4, 8, 3), np.uint8))).max() == 1
    np.testing.assert_array_equal(np.asarray(photo_of(PHOTO[..., 0])), PHOTO[..., :1].repeat(3, -1))


@pytest.mark.parametrize(
    ("attribution", "error", "message"),
    [
        (np.ones((1, 3, 32, 48)), ValueError, r"attribution must be one map: .* but got shape \(1, 3, 32, 48\)"),
        (np.ones((0, 6)), ValueError, r"but got shape \(0, 6\)"),
        (np.full((4, 6), np.nan), ValueError, r"attribution must be finite, but got NaN"),
        ("map", TypeError, r"attribution must be a tensor or array of numbers, but got str"),
        (np.array([["a"]]), TypeError, r"attribution must be a tensor or array of numbers"),
    ],
)
def test_attribution_that_is_none(attribution, error, message):
    with pytest.raises(error, match=message):
        overlay_attribution(attribution, BLACK)


@pytest.mark.parametrize(
    ("image", "error", "message"),
    [
        (np.zeros((1, 3, 32, 48)), ValueError, r"image must be one image.*but got shape \(1, 3, 32, 48\)"),
        (np.zeros((32, 48, 2)), ValueError, r"but got shape \(32, 48, 2\)"),
        (PHOTO / 100 - 1, ValueError, r"must hold integers from 0 to 255 or floats .* but got values from -1 to 1\.55"),
        (np.full((4, 4), np.nan), ValueError, r"but got values from nan"),
        ("photo.jpg", TypeError, r"image must be a tensor or array of numbers, but got str"),
    ],
)
def test_image_that_is_none(image, error, message):
    with pytest.raises(error, match=message):
        overlay_attribution(np.eye(4), image)


@pytest.mark.fault
def test_a_photo_of_sixteen_bits_is_not_white():
    grey = PHOTO[..., 0]
    for deep in (np.uint16(257) * grey, np.int32(257) * grey):
        assert (np.asarray(photo_of(Image.fromarray(deep))) == grey[..., None]).all()
