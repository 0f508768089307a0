"""Every kind of image file becomes 8-bit RGB, the way a person would see it."""

from io import BytesIO

import numpy as np
import pytest
from hostile_images import png_of
from PIL import Image

from captum_gmar.files.images import FRAMES, list_images, read_image, to_rgb

RAMP = np.linspace(0, 255, 12).astype(np.uint8).reshape(3, 4)
COLOURS = np.stack([RAMP, RAMP[::-1], np.full_like(RAMP, 90)], -1)


def read(path, image, **options):
    image.save(path, **options)
    result = read_image(path)
    assert result.mode == "RGB"
    return np.asarray(result)


def grey(values):
    return np.repeat(values[..., None], 3, -1)


def palette():
    return Image.fromarray(COLOURS).quantize(12)


KEPT = {
    "RGB": ("png", Image.fromarray(COLOURS), COLOURS),
    "grey": ("png", Image.fromarray(RAMP), grey(RAMP)),
    "one bit": ("png", Image.fromarray(RAMP > 100), grey(255 * (RAMP > 100).astype(np.uint8))),
    "palette": ("png", palette(), np.asarray(palette().convert("RGB"))),
    "red of CMYK": ("tif", Image.new("CMYK", (4, 3), (0, 255, 255, 0)), [255, 0, 0]),
    "16 bits by their range": ("png", Image.fromarray(RAMP.astype(np.uint16) * 257), grey(RAMP)),
    "16 bits of a TIFF": ("tif", Image.fromarray(RAMP.astype(np.uint16) * 257), grey(RAMP)),
    "more bits by their extremes": ("tif", Image.fromarray(RAMP.astype(np.int32) * 10_000 - 300_000), grey(RAMP)),
    "floats to one": ("tif", Image.fromarray(RAMP.astype(np.float32) / 255), grey(RAMP)),
    "floats beyond": ("tif", Image.fromarray(RAMP.astype(np.float32) * 3.5 - 20), grey(RAMP)),
    "brightness of floats": ("tif", Image.fromarray(np.full((3, 4), 0.2, np.float32)), 51),
}


@pytest.mark.parametrize("kind", KEPT)
def test_every_mode(tmp_path, kind):
    suffix, image, expected = KEPT[kind]
    assert (read(tmp_path / f"a.{suffix}", image) == expected).all()


def test_cmyk_of_a_jpeg(tmp_path):
    image = Image.new("CMYK", (4, 3), (0, 255, 255, 0))  # red
    assert np.abs(read(tmp_path / "a.jpg", image).astype(int) - [255, 0, 0]).max() < 6


def test_transparent_palette_entry_becomes_white(tmp_path):
    image = Image.fromarray((RAMP > 100).astype(np.uint8), "P")
    image.putpalette([200, 0, 0, 0, 0, 200])
    pixels = read(tmp_path / "a.png", image, transparency=0)
    assert (pixels[RAMP <= 100] == 255).all()
    assert (pixels[RAMP > 100] == [0, 0, 200]).all()


def test_transparent_colour_of_grey_becomes_white(tmp_path):
    pixels = read(tmp_path / "a.png", Image.fromarray(RAMP), transparency=0)
    assert (pixels[0, 0] == 255).all()
    assert (pixels[0, 1] == RAMP[0, 1]).all()


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_lies_on_white(tmp_path, mode):
    image = Image.fromarray(np.zeros((3, 4), np.uint8)).convert(mode)
    image.putalpha(Image.fromarray(RAMP))
    assert np.abs(read(tmp_path / "a.png", image).astype(int) - grey(255 - RAMP)).max() <= 1


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_honoured(tmp_path, orientation):
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # by the number of Image.Transpose that makes the stored picture
    upright = Image.fromarray(COLOURS)
    stored = upright.transpose(Image.Transpose(undo[orientation])) if orientation > 1 else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert (read(tmp_path / "a.png", stored, exif=exif) == COLOURS).all()


def cut(image, suffix):
    image.save(file := BytesIO(), suffix)
    return file.getvalue()[:1500]


NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8))
REFUSED = [
    (None, r"a\.png cannot be read: no such file\. Check the path\.$"),
    (b"", r"a\.png cannot be read: the file is empty\."),
    *(
        (text, r"a\.png cannot be read: not an image in any format that Pillow reads\.")
        for text in (b"a text", b"<html>404</html>", b"PK\x03\x04" + bytes(100), bytes(1000))
    ),
    *((cut(NOISE, suffix), r"a\.png cannot be read as an image: ") for suffix in ("png", "jpeg", "gif", "bmp", "tiff")),
    (png_of(60_000, 60_000), r"a\.png cannot be read: too many pixels to decode safely"),
]


@pytest.mark.parametrize(("content", "says"), REFUSED)
def test_what_is_no_image(tmp_path, content, says):
    if content is not None:
        (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(OSError, match=says):
        read_image(tmp_path / "a.png")


def test_a_folder_and_nan(tmp_path):
    with pytest.raises(OSError, match=r"cannot be read: it is a folder, not an image file\."):
        read_image(tmp_path)
    with pytest.raises(OSError, match=r"a\.tif cannot be read as an image: it holds NaN"):
        read(tmp_path / "a.tif", Image.fromarray(np.full((3, 4), np.nan, np.float32)))


def test_list_images_is_sorted_and_stays_in_the_folder(tmp_path):
    for name in ("b.PNG", "a.jpeg", "c.webp", "notes.txt", ".hidden.png", "labels.csv"):
        (tmp_path / name).touch()
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "folder.png" / "d.png").touch()
    assert [path.name for path in list_images(tmp_path)] == ["a.jpeg", "b.PNG", "c.webp"]


@pytest.mark.fault
def test_an_image_in_memory_is_as_its_file(tmp_path):
    deep = Image.fromarray(RAMP.astype(np.uint16) * 257)
    assert (read(tmp_path / "a.png", deep) == np.asarray(to_rgb(deep))).all()
    assert (np.asarray(to_rgb(deep)) == grey(RAMP)).all()


@pytest.mark.fault
def test_a_mask_keeps_its_mode_and_a_film_tells_its_frames(tmp_path):
    """Below the transparent half of a mask is black, which white would be part of the mask."""
    mask = Image.new("RGBA", (4, 2))
    mask.paste("white", (0, 0, 2, 2))
    mask.save(tmp_path / "mask.png")
    kept = read_image(tmp_path / "mask.png", keeps_mode=True).convert("L")
    assert np.asarray(kept).tolist() == [[255, 255, 0, 0]] * 2
    assert np.asarray(read_image(tmp_path / "mask.png")).all()
    frames = [Image.new("RGB", (4, 2), colour) for colour in ("red", "green", "blue")]
    frames[0].save(tmp_path / "film.gif", save_all=True, append_images=frames[1:])
    assert read_image(tmp_path / "film.gif").info[FRAMES] == 3
    (tmp_path / "cut.gif").write_bytes((tmp_path / "film.gif").read_bytes()[:-12])
    assert read_image(tmp_path / "cut.gif").getpixel((0, 0)) == (255, 0, 0)
