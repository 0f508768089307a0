"""Frames of a video, and films that are written."""

import numpy as np
import pytest
from PIL import Image

from captum_gmar.files.videos import read_video, save_film
from captum_gmar.files.writing import is_picture, read_note

GREYS = [25 * number for number in range(9)]


def film(path, seconds=0.08):
    save_film([Image.new("RGB", (16, 12), (grey,) * 3) for grey in GREYS], path, seconds, '{"size": 96}')
    return path


def test_frames_from_the_first_to_the_last(tmp_path):
    clip = read_video(film(tmp_path / "clip.gif"), 4)
    assert [np.asarray(frame)[0, 0, 0] for frame in clip.frames] == [GREYS[number] for number in (0, 2, 5, 8)]
    assert clip.frames[0].size == (16, 12)
    assert clip.seconds == pytest.approx(0.08 * 9 / 4)
    assert len(read_video(tmp_path / "clip.gif", 1).frames) == 1
    assert read_note(tmp_path / "clip.gif") == '{"size": 96}'
    assert is_picture(tmp_path / "clip.gif")


def test_an_mp4(tmp_path):
    pytest.importorskip("av", reason="PyAV is not installed, which reads and writes MP4")
    clip = read_video(film(tmp_path / "clip.mp4", 0.125), 3)
    found = [np.asarray(frame, dtype=float).mean() for frame in clip.frames]
    assert found == pytest.approx([GREYS[number] for number in (0, 4, 8)], abs=6)  # it is compressed
    assert clip.seconds == pytest.approx(0.125 * 9 / 3)
    assert b'captum-gmar {"size": 96}' in (tmp_path / "clip.mp4").read_bytes()
    (tmp_path / "broken.mp4").write_bytes(b"no film")
    with pytest.raises(OSError, match=r"broken\.mp4 cannot be read as a video"):
        read_video(tmp_path / "broken.mp4", 3)


@pytest.mark.fault
@pytest.mark.parametrize(("encoder", "codec"), [("libx264", "h264"), ("libvpx-vp9", "vp9")])
def test_an_mp4_is_of_a_kind_that_browsers_play(encoder, codec, tmp_path, monkeypatch):
    av = pytest.importorskip("av", reason="PyAV is not installed, which reads and writes MP4")
    if encoder not in av.codecs_available:
        pytest.skip(f"this PyAV has no {encoder}")
    monkeypatch.setattr(av, "codecs_available", {encoder, "mpeg4"})
    path = tmp_path / "clip.mp4"
    save_film([Image.new("RGB", (17, 13), (grey,) * 3) for grey in GREYS], path, 0.1)  # odd sizes, which lose a line
    with av.open(str(path)) as film:
        stream = film.streams.video[0]
        found = stream.codec_context.name, stream.codec_context.pix_fmt, stream.width, stream.height, stream.frames
    assert found == (codec, "yuv420p", 16, 12, len(GREYS))
    content = path.read_bytes()
    assert 0 < content.index(b"moov") < content.index(b"mdat")  # the index before the frames


def test_an_mp4_needs_an_encoder_that_browsers_play(tmp_path, monkeypatch):
    av = pytest.importorskip("av", reason="PyAV is not installed, which reads and writes MP4")
    monkeypatch.setattr(av, "codecs_available", {"mpeg4"})
    with pytest.raises(OSError, match=r"clip\.mp4 cannot be written: it needs H\.264 or VP9, which this PyAV lacks"):
        film(tmp_path / "clip.mp4")
    assert not list(tmp_path.iterdir())


def test_what_is_no_video_of_so_many_frames_is_told(tmp_path):
    with pytest.raises(ValueError, match=r"at least the 10 frames that the model takes, but got 9"):
        read_video(film(tmp_path / "clip.gif"), 10)
    (tmp_path / "text.gif").write_text("no film")
    with pytest.raises(OSError, match=r"text\.gif cannot be read: not a film that Pillow reads"):
        read_video(tmp_path / "text.gif", 2)
    with pytest.raises(OSError, match=r"absent\.mp4 cannot be read: no such file"):
        read_video(tmp_path / "absent.mp4", 2)
    with pytest.raises(OSError, match="is a folder, not a video"):
        read_video(tmp_path, 2)


def test_without_pyav(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    (tmp_path / "clip.mp4").write_bytes(b"film")
    with pytest.raises(OSError, match=r"clip\.mp4 cannot be read: its format needs PyAV\."):
        read_video(tmp_path / "clip.mp4", 2)
