"""Films: each frame is the map over its photo, enlarged, below its caption, and all are of one size."""

import numpy as np
import pytest
from PIL import Image

from captum_gmar.files.videos import read_video, save_film
from captum_gmar.visualization import compose_film, overlay_attribution

RNG = np.random.default_rng(0)
PHOTO = Image.fromarray(RNG.integers(0, 256, (60, 80, 3), dtype=np.uint8))
MAPS = RNG.random((3, 4, 5))
WORDS = ["a", "a red", "a red disc with " + "a very long name " * 20]


def test_frames_are_maps_over_the_enlarged_photo():
    film, large = compose_film(MAPS, PHOTO, WORDS, smooth=False, share_scale=False), PHOTO.resize((480, 360))
    assert {frame.size for frame in film} == {film[0].size}
    for frame, values in zip(film, MAPS, strict=True):
        top = frame.height - 360 - 58  # a bar, its values and a moment are below
        drawn = frame.crop((0, top, 480, top + 360))
        np.testing.assert_array_equal(drawn, overlay_attribution(values, large))


def test_one_scale_unless_each_has_its_own():
    """A map of a tenth has a tenth of the strength, or the same."""
    maps = np.stack([MAPS[0], MAPS[0] / 10])
    for shared in (True, False):
        frames = compose_film(maps, PHOTO, ["", ""], share_scale=shared)
        one, other = (frame.crop((0, 0, 480, frame.height - 58)) for frame in frames)
        assert (one.tobytes() != other.tobytes()) == shared


def test_label_below_the_bar():
    """A line more, which holds letters below frames that are as without it."""
    (plain,), (labelled,) = (compose_film(-MAPS[:1], PHOTO, ["a"], label=text) for text in ("", "share, %"))
    box = (0, 0, *plain.size)
    assert labelled.size == (plain.width, plain.height + 24)
    np.testing.assert_array_equal(labelled.crop(box), plain)
    assert np.asarray(labelled.crop((0, plain.height - 5, 480, labelled.height))).min() < 100


def test_tubes_hold_for_several_frames_and_parts_of_a_photo(tmp_path):
    frames = [PHOTO, PHOTO.rotate(90).resize(PHOTO.size)] * 3
    film = compose_film(MAPS, frames, WORDS, crop=(8, 0, 68, 60), moments=[f"{second} s" for second in range(6)])
    assert len(film) == 6
    save_film(film, tmp_path / "film.gif", 0.5)
    clip = read_video(tmp_path / "film.gif", 6)
    assert (clip.seconds, clip.frames[0].size) == (0.5, film[0].size)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((MAPS, PHOTO, WORDS[:2]), r"but got 3 maps, 2 captions and 3 images"),
        ((MAPS, [PHOTO] * 4, WORDS), r"but got 3 maps, 3 captions and 4 images"),
        ((MAPS[:0], PHOTO, []), r"maps must be at least one"),
    ],
)
def test_what_does_not_fit_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        compose_film(*arguments)
    with pytest.raises(ValueError, match=r"moments must be one for each of the 3 frames, but got 1"):
        compose_film(MAPS, PHOTO, WORDS, moments=["0 s"])
