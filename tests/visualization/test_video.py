"""A video is drawn frame by frame in one colour scale, and its film has the colours of the strip."""

import numpy as np
import pytest
import torch
from matplotlib import colormaps
from PIL import Image

from captum_gmar import overlay_video, visualize_video

GREY = torch.full((4, 3, 16, 16), 0.5)


def tubes() -> torch.Tensor:
    """Two tubes of 2x2 places: one strong place in the first, half of it in the second, and none elsewhere."""
    relevance = torch.zeros(2, 2, 2)
    relevance[0, 0, 1], relevance[1, 1, 0] = 1.0, 0.5
    return relevance


def test_frames_of_a_tube_share_its_map_and_all_share_one_scale() -> None:
    _, (frames, overlays) = visualize_video(tubes(), GREY, use_pyplot=False)
    assert [panel.get_title() for panel in frames] == [f"frame {number}" for number in range(4)]
    maps = [panel.images[-1] for panel in overlays]
    assert {(image.norm.vmin, image.norm.vmax) for image in maps} == {(0.0, 1.0)}
    values = [np.asarray(image.get_array()) for image in maps]
    expected = np.kron(tubes().numpy(), np.ones((8, 8)))
    for number in range(4):
        np.testing.assert_array_equal(values[number], expected[number // 2])
    texts = [axes.get_xlabel() for panel in overlays for axes in panel.child_axes]
    assert texts == ["relevance per tube"]


def test_frames_that_do_not_fill_the_last_line_leave_it_short() -> None:
    _, (frames, overlays) = visualize_video(torch.rand(10, 2, 2), torch.rand(10, 3, 16, 16), use_pyplot=False)
    assert len(frames) == len(overlays) == 10
    heights = [round(panel.get_position().y0, 6) for panel in frames]
    assert heights[:8] == [heights[0]] * 8
    assert heights[8] == heights[9] < heights[0]


def test_a_film_has_the_colour_of_each_place() -> None:
    films = overlay_video(tubes(), GREY, alpha_overlay=0.6)
    assert [film.size for film in films] == [(16, 16)] * 4
    colour = np.array(colormaps["viridis"](1.0)[:3])
    strong = np.rint(255 * (0.4 * 0.5 + 0.6 * colour)).astype(int)
    half = np.rint(255 * (0.7 * 0.5 + 0.3 * np.array(colormaps["viridis"](0.5)[:3]))).astype(int)
    assert np.abs(np.asarray(films[1])[0, 15] - strong).max() <= 1
    assert np.abs(np.asarray(films[2])[15, 0] - half).max() <= 1
    assert (np.asarray(films[0])[15, 0] == 128).all()


def test_attributions_of_pixels_are_summed_over_channels() -> None:
    pixels = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0)) - 0.5
    _, (_, overlays) = visualize_video(pixels, GREY, use_pyplot=False)
    for panel, moment in zip(overlays, pixels, strict=True):
        image = panel.images[-1]
        np.testing.assert_allclose(np.asarray(image.get_array()), moment.sum(0).double(), rtol=1e-5, atol=1e-6)
        assert image.norm.vmin == -image.norm.vmax


@pytest.mark.parametrize(
    ("shape", "frames", "message"),
    [
        ((3, 2, 2), GREY, r"a time that divides the frames, 4, evenly.*Got shape \(3, 2, 2\) instead\."),
        ((2, 2), GREY, r"attribution must be of one video.*Got shape \(2, 2\) instead\."),
        ((2, 3, 3), GREY, r"patches that divide it evenly\. Got shape \(3, 3\) instead\."),
        ((2, 2, 2), [], r"frames must be at least one, all of one size\. Got none instead\."),
        ((2, 2, 2), 3, "frames must be a tensor, an array or a sequence of images. Got 3 instead"),
        (
            (2, 2, 2),
            [Image.new("RGB", (16, 16)), Image.new("RGB", (8, 16))],
            r"frames must be at least one, all of one size\. Got \[\(16, 8\), \(16, 16\)\] instead\.",
        ),
    ],
)
def test_what_is_no_video_is_told(shape: tuple[int, ...], frames: torch.Tensor, message: str) -> None:
    for draw in (visualize_video, overlay_video):
        with pytest.raises((TypeError, ValueError), match=message):
            draw(torch.rand(shape), frames)
