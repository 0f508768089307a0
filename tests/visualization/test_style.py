"""Numbers and units as every picture and table writes them, and colours that can be told apart."""

from itertools import combinations, product

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from captum_gmar.visualization._heatmap import FADE, OPACITY, PAPER
from captum_gmar.visualization._style import AGAINST, COLOURS, FOR, GREY, milliseconds_text, number_text, percent_text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (number_text(-0.03381), "−0.0338"),
        (number_text(-1, "d"), "−1"),
        (number_text(4.64e-05), "4.64e−05"),
        (percent_text(0.254), "25 %"),
        (milliseconds_text(0.01234), "12.3"),
        (milliseconds_text(0.1234), "123"),
    ],
)
def test_texts(text, expected):
    assert text == expected


def test_colours_are_of_okabe_and_ito():
    """The numbers of their page, "Color universal design"; without yellow."""
    of_the_page = {(0, 114, 178), (213, 94, 0), (0, 158, 115), (204, 121, 167), (86, 180, 233), (230, 159, 0), (0,) * 3}
    assert {tuple(round(255 * part) for part in to_rgb(colour)) for colour in COLOURS} == of_the_page
    assert GREY not in COLOURS


# What a reader sees of linear RGB, of the severest kind: Machado, Oliveira and Fernandes, "A Physiologically-based
# Model for Simulation of Color Vision Deficiency", 2009.
SEEN = {
    "as most do": np.eye(3),
    "without red cones": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "without green cones": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
    "without blue cones": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]
    ),
}
TOLD_APART = 10  # in CIELAB, where 2.3 can just be seen


def as_seen(colours, reader):
    """CIELAB (…, 3) of what a reader sees of sRGB colours (…, 3), by the definitions of both spaces; white is D65."""
    parts = np.asarray(colours, dtype=np.float64)
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    linear = np.clip(linear @ SEEN[reader].T, 0, 1)
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = linear @ (to_xyz / to_xyz.sum(1, keepdims=True)).T
    roots = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    x, y, z = np.moveaxis(roots, -1, 0)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], -1)


def test_white_and_red_are_seen_as_the_spaces_define_them():
    np.testing.assert_allclose(as_seen([1, 1, 1], "as most do"), [100, 0, 0], atol=1e-6)
    np.testing.assert_allclose(
        as_seen([1, 0, 0], "as most do"), [53.24, 80.09, 67.20], atol=0.05
    )  # of a matrix of four digits
    for reader in SEEN:  # grey is grey to everybody
        np.testing.assert_allclose(as_seen([0.5, 0.5, 0.5], reader)[1:], 0, atol=0.01)


@pytest.mark.parametrize("reader", SEEN)
def test_colours_are_told_apart_by_every_reader(reader):
    lines = as_seen([to_rgb(colour) for colour in COLOURS], reader)
    assert min(np.linalg.norm(one - other) for one, other in combinations(lines, 2)) > TOLD_APART


@pytest.mark.parametrize("reader", SEEN)
def test_hues_of_maps_are_told_from_each_other_and_from_grey(reader):
    """By their colour alone, as the photo may be of any grey, from a quarter of the scale on."""
    for level, strength in product(np.linspace(FADE * PAPER, (1 - FADE) * 255 + FADE * PAPER, 9), (0.25, 0.5, 1)):
        opacity = OPACITY * strength
        mixed = [((1 - opacity) * level + opacity * np.array(hue)) / 255 for hue in (FOR, AGAINST)]
        speaking, against = as_seen(mixed, reader)
        assert np.linalg.norm(speaking - against) > 2 * TOLD_APART
        assert min(np.hypot(*speaking[1:]), np.hypot(*against[1:])) > TOLD_APART
