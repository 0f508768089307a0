"""Photos on disk."""

import pytest
from PIL import Image


@pytest.fixture
def photos(tmp_path):
    """A folder with two classes of images of 8x6 pixels, and what is no image or hidden."""
    for number, name in enumerate(["cat/b.png", "cat/a.jpg", "dog/c.png", ".hidden/d.png"]):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (8, 6), (50 * number, 0, 0)).save(path)
    (tmp_path / "cat" / "notes.txt").write_text("no image")
    return tmp_path
