"""Every kind of image file becomes 8-bit RGB, the way a person would see it."""

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


def test_rgb_is_unchanged(tmp_path):
    assert (read(tmp_path / "a.png", Image.fromarray(COLOURS)) == COLOURS).all()


def test_grey_becomes_three_equal_channels(tmp_path):
    assert (read(tmp_path / "a.png", Image.fromarray(RAMP)) == grey(RAMP)).all()


def test_one_bit_is_black_and_white(tmp_path):
    bits = RAMP > 100
    assert (read(tmp_path / "a.png", Image.fromarray(bits)) == grey(bits.astype(np.uint8) * 255)).all()


def test_palette(tmp_path):
    image = Image.fromarray(COLOURS).quantize(12)
    assert (read(tmp_path / "a.png", image) == np.asarray(image.convert("RGB"))).all()


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


def test_cmyk(tmp_path):
    image = Image.new("CMYK", (4, 3), (0, 255, 255, 0))  # red
    assert (read(tmp_path / "a.tif", image) == [255, 0, 0]).all()
    assert np.abs(read(tmp_path / "a.jpg", image).astype(int) - [255, 0, 0]).max() < 6


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bits_are_scaled_by_their_range(tmp_path, suffix):
    image = Image.fromarray(RAMP.astype(np.uint16) * 257)
    assert image.mode == "I;16"
    assert (read(tmp_path / f"a.{suffix}", image) == grey(RAMP)).all()


def test_integers_beyond_sixteen_bits_are_scaled_by_their_extremes(tmp_path):
    image = Image.fromarray(RAMP.astype(np.int32) * 10_000 - 300_000)
    assert (read(tmp_path / "a.tif", image) == grey(RAMP)).all()


@pytest.mark.parametrize(("scale", "shift"), [(1 / 255, 0), (3.5, -20)])
def test_floats(tmp_path, scale, shift):
    image = Image.fromarray(RAMP.astype(np.float32) * scale + shift)
    assert (read(tmp_path / "a.tif", image) == grey(RAMP)).all()


def test_floats_between_zero_and_one_keep_their_brightness(tmp_path):
    image = Image.fromarray(np.full((3, 4), 0.2, np.float32))
    assert (read(tmp_path / "a.tif", image) == 51).all()


def test_float_image_with_nan_is_refused(tmp_path):
    image = Image.fromarray(np.full((3, 4), np.nan, np.float32))
    with pytest.raises(OSError, match=r"a\.tif cannot be read as an image: it holds NaN"):
        read(tmp_path / "a.tif", image)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_honoured(tmp_path, orientation):
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # by the number of Image.Transpose that makes the stored picture
    upright = Image.fromarray(COLOURS)
    stored = upright.transpose(Image.Transpose(undo[orientation])) if orientation > 1 else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert (read(tmp_path / "a.png", stored, exif=exif) == COLOURS).all()


def test_missing_file(tmp_path):
    with pytest.raises(OSError, match=r"nothing\.png cannot be read: no such file\. Check the path\.$"):
        read_image(tmp_path / "nothing.png")


def test_folder(tmp_path):
    with pytest.raises(OSError, match=r"is a folder, not an image file\. Pass a file in it\.$"):
        read_image(tmp_path)


def test_empty_file(tmp_path):
    (tmp_path / "a.png").touch()
    with pytest.raises(OSError, match=r"a\.png cannot be read: the file is empty\. Fetch it again\.$"):
        read_image(tmp_path / "a.png")


@pytest.mark.parametrize("content", [b"this is a text", b"<html>404</html>", b"PK\x03\x04" + bytes(100), bytes(1000)])
def test_not_an_image(tmp_path, content):
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(OSError, match=r"a\.png cannot be read: not an image in any format that Pillow reads\."):
        read_image(tmp_path / "a.png")


@pytest.mark.parametrize("suffix", ["png", "jpg", "gif", "bmp", "tif"])
def test_truncated_file(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[:1500])
    with pytest.raises(OSError, match=rf"a\.{suffix}: "):
        read_image(path)


def test_decompression_bomb(tmp_path):
    (tmp_path / "a.png").write_bytes(png_of(60_000, 60_000))
    with pytest.raises(OSError, match=r"a\.png cannot be read: too many pixels to decode safely"):
        read_image(tmp_path / "a.png")


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
