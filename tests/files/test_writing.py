"""Files are written whole or not at all, errors name them, and pictures are known again."""

import json

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from captum_gmar.files.writing import (
    atomic_write,
    is_picture,
    read_note,
    save_arrays,
    save_picture,
    write_csv,
    write_json,
    write_page,
    write_text,
)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def write(path, text, error=None):
    with atomic_write(path) as temporary:
        temporary.write_text(text)
        if error:
            raise error


def test_replacing_keeps_links_and_what_was_there(tmp_path):
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_text("before")
    link.symlink_to(target)
    with pytest.raises(OSError, match=r"link cannot be written: disk is full\."):
        write(link, "half", OSError("disk is full"))
    with pytest.raises(KeyboardInterrupt):
        write(link, "half", KeyboardInterrupt())
    assert target.read_text() == "before"
    write(link, "after")
    assert link.is_symlink()
    assert target.read_text() == "after"
    assert names(tmp_path) == ["link", "target"]


def test_a_link_to_itself_is_named(tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(OSError, match=r"loop/a\.txt cannot be written: Too many levels of symbolic links"):
        write_text(tmp_path / "loop" / "a.txt", "text")


@pytest.mark.parametrize("name", ["none/a.txt", "a" * 300 + ".txt"])
def test_a_path_that_cannot_be_is_named_once(tmp_path, name):
    with pytest.raises(OSError, match=r"cannot be written: (No such file|File name too long)") as raised:
        write_text(tmp_path / name, "text")
    assert str(raised.value).count(name) == 1
    assert names(tmp_path) == []


def test_texts_and_tables_are_utf_8(tmp_path):
    write_json(tmp_path / "a.json", {"label": "猫", "path": "latin\udce9.jpg"})
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8").replace("\\udce9", "\\\\xe9")) == {
        "label": "猫",
        "path": "latin\\xe9.jpg",
    }
    write_csv(tmp_path / "a.csv", ["path", "label"], [("a,b\udce9.jpg", "猫"), ("c", 1)])
    assert (tmp_path / "a.csv").read_text(encoding="utf-8") == 'path,label\n"a,b\\udce9.jpg",猫\nc,1\n'


def test_arrays_come_back(tmp_path):
    save_arrays(tmp_path / "a.npz", {"image": np.array(["latin\udce9.jpg"]), "relevance": np.arange(4.0)})
    with np.load(tmp_path / "a.npz") as arrays:
        assert arrays["image"].tolist() == ["latin\udce9.jpg"]
        assert arrays["relevance"].tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("suffix", ["png", "jpg", "JPEG"])
def test_pictures_are_known_again_and_photos_are_not(tmp_path, suffix):
    picture, photo = tmp_path / f"a.{suffix}", tmp_path / f"b.{suffix}"
    figure = Figure((1, 1))
    figure.text(0, 0.5, "text")
    save_picture(figure, picture, '{"size": 96}')
    assert read_note(picture) == '{"size": 96}'
    Image.new("RGB", (8, 8)).save(photo)
    assert is_picture(picture)
    assert read_note(photo) is None
    assert not is_picture(photo)
    photo.write_bytes(picture.read_bytes()[:30])
    assert not is_picture(photo)
    assert not is_picture(tmp_path / "none.png")


@pytest.mark.parametrize("suffix", ["pdf", "svg"])
def test_drawings_in_lines_say_their_settings_as_well(tmp_path, suffix):
    save_picture(Figure((1, 1)), tmp_path / f"a.{suffix}", "size 96")
    assert b"size 96" in (tmp_path / f"a.{suffix}").read_bytes()


def test_a_page_keeps_its_note_and_no_note_ends_its_comment(tmp_path):
    page, note = tmp_path / "a.html", json.dumps({"prompt": "--> <b>"})
    write_page(page, "<p>text</p>", note)
    written = page.read_text(encoding="utf-8")
    assert written.startswith("<p>text</p>")
    assert written.count("-->") == 1
    found = read_note(page)
    assert found is not None
    assert json.loads(found) == json.loads(note)
    page.write_text("<p>text</p>")
    assert read_note(page) is None
