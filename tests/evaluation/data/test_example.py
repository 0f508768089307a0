"""Masks of an example, and its identity."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from captum_gmar.evaluation.data.data_files import read_examples
from evaluation.data.tables import BOX, inside, masked, save_mask, white, write_table


def saved_masks():
    def palette(mask):
        image = Image.fromarray(mask.astype(np.uint8))
        image.putpalette([0, 0, 0, 0, 0, 0])
        return image

    def transparent(mask):
        return Image.fromarray((255 * mask).astype(np.uint8)).convert("RGBA")

    return {
        "black and white": lambda mask: Image.fromarray(mask),
        "class indices": lambda mask: Image.fromarray((7 * mask).astype(np.uint8)),
        "16 bit": lambda mask: Image.fromarray(mask.astype(np.uint16)),
        "palette": palette,
        "opaque": transparent,
    }


@pytest.mark.parametrize("kind", saved_masks())
def test_masks(photos, kind):
    mask = np.zeros((6, 8), bool)
    mask[2:4, 1:5] = True
    saved_masks()[kind](mask).save(photos / "mask.png")
    (example,) = read_examples(write_table(photos / "t.json", [{"path": "cat/a.jpg", "mask": "mask.png"}]))
    assert example.has_object
    assert white(example.read_mask(8, 6)) == inside(BOX)


def test_bad_masks(photos):
    Image.new("L", (3, 3)).save(photos / "small.png")
    (photos / "broken.png").write_bytes(b"no png")

    with pytest.raises(ValueError, match="its mask is of 3x3 pixels and the image of 8x6"):
        masked(photos, mask="small.png").read_mask(8, 6)
    for name in ("broken.png", "absent.png", 5):
        with pytest.raises(OSError, match=f"{name} cannot be read as a mask"):
            masked(photos, mask=name).read_mask(8, 6)


@pytest.mark.parametrize("box", [[0, 0, 9, 2], [4, 4, 2, 2]])
def test_box_outside_of_its_image(photos, box):
    (example,) = read_examples(write_table(photos / "t.json", [{"path": "cat/a.jpg", "boxes": [box]}]))
    with pytest.raises(ValueError, match="inside the image of 8x6 pixels, width by height"):
        example.read_mask(8, 6)


@pytest.mark.parametrize("change", [{"label": 2}, {"boxes": [[0, 0, 1, 1]]}, {"mask": None}])
def test_what_is_known_is_part_of_an_example(photos, change):
    save_mask(photos / "mask.png")
    measured = masked(photos).identity()
    assert masked(photos).is_same(measured)
    assert not masked(photos, **change).is_same(measured)


@pytest.mark.parametrize("name", ["cat/a.jpg", "mask.png"])
def test_another_image_under_the_same_name_is_another_example(photos, name):
    """Change a byte, which keeps the size."""
    save_mask(photos / "mask.png")
    measured = masked(photos).identity()
    content = bytearray((photos / name).read_bytes())
    content[-1] ^= 1
    (photos / name).write_bytes(content)
    assert not masked(photos).is_same(measured)
    (photos / name).unlink()
    assert not masked(photos).is_same(measured)


def test_a_copy_of_the_files_is_the_same(photos, monkeypatch):
    """Whose times are others: the content decides. Where size and time are the same, it is not read."""
    save_mask(photos / "mask.png")
    measured = masked(photos).identity()
    os.utime(photos / "cat" / "a.jpg", (1, 1))
    assert masked(photos).is_same(measured)
    touched = masked(photos).identity()
    monkeypatch.setattr(Path, "read_bytes", None)
    assert masked(photos).is_same(touched)
