"""A video is drawn frame by frame in one colour scale, and its film has the colours of the strip."""

import numpy as np
import pytest
import torch
from PIL import Image

from captum_gmar.visualization import overlay_attribution, visualize_video
from captum_gmar.visualization._heatmap import FADE, OPACITY, PAPER
from captum_gmar.visualization._style import FOR

GREY = torch.full((4, 3, 16, 16), 0.5)


def tubes():
    """Two tubes of 2x2 places: one strong place in the first, half of it in the second, and none elsewhere."""
    relevance = torch.zeros(2, 2, 2)
    relevance[0, 0, 1], relevance[1, 1, 0] = 1.0, 0.5
    return relevance


def films_of(attribution, frames, **options):
    """Return the frames with their relevance, as they are drawn."""
    _, (_, overlays) = visualize_video(attribution, frames, use_pyplot=False, **options)
    return [np.asarray(panel.images[0].get_array()) for panel in overlays]


def test_frames_of_a_tube_share_its_map_and_all_share_one_scale():
    _, (frames, overlays) = visualize_video(tubes(), GREY, use_pyplot=False)
    assert [panel.get_title() for panel in frames] == [f"frame {number}" for number in range(4)]
    shown = [np.asarray(panel.images[0].get_array()) for panel in overlays]
    for frame, same in ((0, 1), (2, 3)):
        np.testing.assert_array_equal(shown[frame], shown[same])
    assert [panel.get_xlabel() for panel in overlays] == ["relevance per tube", "", "", ""]


def test_many_frames_take_lines_of_equal_length():
    _, (frames, overlays) = visualize_video(torch.rand(10, 2, 2), torch.rand(10, 3, 16, 16), use_pyplot=False)
    assert len(frames) == len(overlays) == 10
    heights = [round(panel.get_position().y0, 6) for panel in frames]
    assert len(set(heights[:5])) == len(set(heights[5:])) == 1
    assert heights[5] < heights[0]


def test_a_film_has_the_colour_of_each_place():
    films = films_of(tubes(), GREY)
    assert [film.shape for film in films] == [(16, 16, 3)] * 4
    ground = (1 - FADE) * 127.5 + FADE * PAPER
    strong, half = ((1 - opacity) * ground + opacity * np.array(FOR) for opacity in (OPACITY, OPACITY / 2))
    assert np.abs(np.asarray(films[1])[0, 15].astype(float) - strong).max() <= 1
    assert np.abs(np.asarray(films[2])[15, 0] - half).max() <= 1
    assert np.abs(np.asarray(films[0])[15, 0] - ground).max() <= 1


def test_frames_of_the_clip_with_the_models_crop():
    frames, crop = [Image.new("RGB", (60, 40))] * 4, (10.0, 0.0, 50.0, 40.0)
    film = films_of(tubes(), frames, crop=crop)[0]
    expected = overlay_attribution(tubes()[0], frames[0], crop=crop)  # which has the largest value of the film
    np.testing.assert_array_equal(np.asarray(film), np.asarray(expected))


def test_attributions_of_pixels_are_summed_over_channels():
    pixels = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0)) - 0.5
    films = films_of(pixels, GREY)
    sums = pixels.sum(1, keepdim=True)
    for film, expected in zip(films, films_of(sums, GREY), strict=True):
        np.testing.assert_array_equal(np.asarray(film), np.asarray(expected))
    assert len({film.tobytes() for film in films}) == 4


@pytest.mark.parametrize(
    ("shape", "frames", "message"),
    [
        ((3, 2, 2), GREY, r"a time that divides the frames, 4, evenly.*but got shape \(3, 2, 2\)\."),
        ((2, 2), GREY, r"attribution must be of one video.*but got shape \(2, 2\)\."),
        ((2, 2, 2), [], r"frames must be at least one, all of one size, but got none\."),
        ((2, 2, 2), 3, "frames must be a tensor, an array or a sequence of images, but got 3"),
        (
            (2, 2, 2),
            [Image.new("RGB", (16, 16)), Image.new("RGB", (8, 16))],
            r"frames must be at least one, all of one size, but got \[\(16, 8\), \(16, 16\)\]\.",
        ),
    ],
)
def test_what_is_no_video_is_told(shape, frames, message):
    with pytest.raises((TypeError, ValueError), match=message):
        visualize_video(torch.rand(shape), frames)
