"""Frames of a video, and films that are written."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from captum_gmar.files.videos import read_video, save_film

GREYS = [25 * number for number in range(9)]


def film(path: Path, seconds: float = 0.08) -> Path:
    save_film([Image.new("RGB", (16, 12), (grey,) * 3) for grey in GREYS], path, seconds)
    return path


def test_frames_from_the_first_to_the_last(tmp_path: Path) -> None:
    clip = read_video(film(tmp_path / "clip.gif"), 4)
    assert [np.asarray(frame)[0, 0, 0] for frame in clip.frames] == [GREYS[number] for number in (0, 2, 5, 8)]
    assert clip.frames[0].size == (16, 12)
    assert clip.seconds == pytest.approx(0.08 * 9 / 4)
    assert len(read_video(tmp_path / "clip.gif", 1).frames) == 1


def test_an_mp4(tmp_path: Path) -> None:
    pytest.importorskip("av", reason="PyAV is not installed, which reads and writes MP4")
    clip = read_video(film(tmp_path / "clip.mp4", 0.125), 3)
    found = [np.asarray(frame, dtype=float).mean() for frame in clip.frames]
    assert found == pytest.approx([GREYS[number] for number in (0, 4, 8)], abs=6)  # it is compressed
    assert clip.seconds == pytest.approx(0.125 * 9 / 3)
    (tmp_path / "broken.mp4").write_bytes(b"no film")
    with pytest.raises(OSError, match=r"broken\.mp4: cannot be read as a video"):
        read_video(tmp_path / "broken.mp4", 3)


def test_what_is_no_video_of_so_many_frames_is_told(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"at least the 10 frames that the model takes\. Got 9 instead"):
        read_video(film(tmp_path / "clip.gif"), 10)
    (tmp_path / "text.gif").write_text("no film")
    with pytest.raises(OSError, match=r"text\.gif: not a film in any format that Pillow reads"):
        read_video(tmp_path / "text.gif", 2)
    with pytest.raises(OSError, match=r"absent\.mp4: no such file"):
        read_video(tmp_path / "absent.mp4", 2)
    with pytest.raises(OSError, match="is a folder, not a video"):
        read_video(tmp_path, 2)


def test_without_pyav(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    (tmp_path / "clip.mp4").write_bytes(b"film")
    with pytest.raises(OSError, match=r"clip\.mp4: a film of this format needs PyAV: pip install"):
        read_video(tmp_path / "clip.mp4", 2)
