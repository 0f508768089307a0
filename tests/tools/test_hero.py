"""The picture of the README: a row of equal height for each photo."""

import pytest
from PIL import Image

pytest.importorskip("tools.hero", reason="the tools are not installed; they stand in a checkout")

from captum_gmar.classifier import load_classifier
from captum_gmar.demo import model_folder
from tools.hero import GAP, HEIGHT, LINE, compose, draw_row


def test_rows_show_the_photo_and_two_maps_in_its_shape(tmp_path):
    Image.effect_noise((300, 200), 90).convert("RGB").save(tmp_path / "photo.png")
    with model_folder() as folder:
        row = draw_row(load_classifier(folder), tmp_path / "photo.png")
    assert [image.size for image, _ in row] == [(HEIGHT * 3 // 2, HEIGHT)] * 3
    page = compose([row, row])
    assert page.size == (3 * row[0][0].width + 2 * GAP, 2 * (HEIGHT + LINE) + GAP)
    shown = page.crop((0, LINE, row[0][0].width, LINE + HEIGHT))
    assert shown.convert("RGB") == row[0][0]
    assert page.getpixel((row[0][0].width, LINE))[3] == 0  # between pictures the page shows
