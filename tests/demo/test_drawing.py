"""Shapes, textures and colours against geometry."""

import numpy as np
import pytest

from captum_gmar.demo import drawing
from captum_gmar.demo.scenes import SHAPES

FINE = 2000  # points a side
SIDE = (np.arange(FINE) + 0.5) / FINE * 4 - 2
X, Y = np.meshgrid(SIDE, SIDE)


@pytest.mark.parametrize("shape", SHAPES)
def test_shapes_have_unit_area_and_reach_no_farther_than_said(shape):
    inside = shape(X, Y) < 0
    assert inside.mean() * 16 == pytest.approx(1, abs=0.005)
    assert np.sqrt(X**2 + Y**2)[inside].max() < drawing.REACH


def test_edges_are_one_pixel_soft():
    assert drawing.soften(np.array([-3.0, -0.5, 0.0, 0.25, 0.5, 3.0])).tolist() == [1, 1, 0.5, 0.25, 0, 0]


@pytest.mark.parametrize("texture", [drawing.striped, drawing.checked, drawing.ringed])
def test_both_colours_of_a_texture_cover_about_half(texture):
    plane = texture(X * 60, Y * 60, 6.0, (0.1, 0.7))
    assert plane.min() == 0
    assert plane.max() == pytest.approx(1)
    assert plane.mean() == pytest.approx(0.5, abs=0.02)


def test_stripes_repeat_at_their_period():
    line = np.linspace(0, 20, 81)
    stripes = drawing.striped(line, np.zeros_like(line), 5.0, (0.3, 0.0))
    assert stripes[:-20] == pytest.approx(stripes[20:])


def test_light_and_dark_colours_differ():
    rng = np.random.default_rng(0)
    for _ in range(50):
        first, second = drawing.draw_colours(rng)
        assert abs(first.max() - second.max()) > 0.2  # the largest channel is the colour's value
        assert min(first.min(), second.min()) >= 0
        assert max(first.max(), second.max()) <= 1
