"""The answers of the page of ``captum-gmar app``, without the page."""

import pytest
import torch
from hostile_images import png_of
from PIL import Image

from captum_gmar.cli import main
from captum_gmar.cli.app import answers
from captum_gmar.cli.app.answers import (
    compare_methods,
    explain_patch,
    rank_classes,
    read_upload,
    scene_image,
    view_of_model,
)
from captum_gmar.cli.app.page import as_text
from captum_gmar.cli.sources import open_source


@pytest.fixture(scope="module")
def small():
    return open_source(None, None, "cpu").classifier


@pytest.mark.parametrize("side", [30_000, 8_000])
def test_images_of_too_many_pixels_are_refused_before_they_are_decoded(side, tmp_path, monkeypatch):
    monkeypatch.setattr(answers, "read_image", lambda path: pytest.fail("it was decoded"))
    (tmp_path / "bomb.png").write_bytes(png_of(side, side))
    with pytest.raises(OSError, match="must have at most 40 million pixels: scale it down first"):
        read_upload(tmp_path / "bomb.png")


def test_files_that_are_too_large_or_no_photo_are_refused(tmp_path, monkeypatch):
    path = tmp_path / "drawing.svg"
    path.write_text('<svg xmlns="http://www.w3.org/2000/svg"/>')
    with pytest.raises(OSError, match=r"^the file must be an image: PNG, JPEG"):
        read_upload(path)
    monkeypatch.setattr(answers, "MOST_BYTES", 10)
    with pytest.raises(OSError, match=r"the file must be of at most 0 MiB\. Got 0 instead\."):
        read_upload(path)
    monkeypatch.undo()
    path.write_bytes(png_of(8, 8))
    with pytest.raises(OSError, match="cannot be read as an image") as refused:
        read_upload(path)
    assert str(tmp_path) not in str(refused.value)


def test_a_photo_is_read(tmp_path):
    Image.new("RGB", (30, 20), "teal").save(tmp_path / "a.jpg")
    assert read_upload(tmp_path / "a.jpg").size == (30, 20)


@pytest.mark.parametrize("shape", [(30, 20), (500, 900)])
def test_what_is_clicked_is_what_the_model_sees_large_enough(small, shape):
    image = Image.new("RGB", shape, "teal")
    pixels = small.pixel_values(image)
    shown = view_of_model(small, image)
    assert min(shown.size) >= 400
    assert shown.width % pixels.shape[-1] == shown.height % pixels.shape[-2] == 0
    assert shown.getpixel((0, 0)) == Image.new("RGB", (1, 1), "teal").getpixel((0, 0))


def test_answers(small):
    image = scene_image(600_025)
    (_, first, share), (_, second, _), *_ = rank_classes(small, image)
    assert share is not None
    plain = compare_methods(small, image, first, None, ["attention-evidence"])
    rather = compare_methods(small, image, first, second, ["attention-evidence"])
    assert plain.relevance["attention-evidence"].shape == (14, 14)
    assert not torch.allclose(plain.relevance["attention-evidence"], rather.relevance["attention-evidence"])
    assert "attention-evidence" in plain.table
    assert "row 13, column 0" in explain_patch(small, image, first, (0.0, 1.0)).get_suptitle()


def test_questions_that_cannot_be_answered(small):
    image = scene_image(3)
    with pytest.raises(ValueError, match="methods must be at least one method"):
        compare_methods(small, image, 0, None, [])
    with pytest.raises(ValueError, match=r"rather than a class requires methods that take it\. Got rollout instead"):
        compare_methods(small, image, 0, 1, ["rollout"])


def test_errors_are_shown_as_they_stand():
    told = as_text("must be *one* <b>, [a](b) or `c_d`: $x$")
    assert told == r"must be \*one\* \<b\>, \[a\](b) or \`c\_d\`: \$x\$"


def test_without_gradio_the_command_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setitem(__import__("sys").modules, "gradio", None)
    assert main.main(["app"]) == 2
    assert (
        'app needs Gradio, which is not installed. In a clone: pip install -c constraints-app.txt -e ".[app]"'
        in capsys.readouterr().err
    )
