"""The answers of the page of ``captum-gmar app``, without the page."""

import matplotlib
import numpy as np
import pytest
import torch
from hostile_images import png_of
from PIL import Image

from captum_gmar.attr._base import TargetMaps
from captum_gmar.attr.catalogue import METHODS
from captum_gmar.cli import main
from captum_gmar.cli.app import answers
from captum_gmar.cli.app.answers import (
    AppQuestion,
    explain_methods,
    explain_patch,
    measure_methods,
    rank_classes,
    read_upload,
    scene_image,
    view_of_model,
)
from captum_gmar.cli.app.page import as_text
from captum_gmar.cli.sources import open_source
from captum_gmar.files.writing import save_picture


@pytest.fixture(scope="module")
def small():
    return open_source(None, None, "cpu").classifier


@pytest.mark.parametrize("side", [30_000, 8_000])
def test_images_of_too_many_pixels_are_refused_before_they_are_decoded(side, tmp_path, monkeypatch):
    monkeypatch.setattr(answers, "read_image", lambda path: pytest.fail("it was decoded"))
    (tmp_path / "bomb.png").write_bytes(png_of(side, side))
    with pytest.raises(OSError, match="must have at most 40 million pixels, but has more"):
        read_upload(tmp_path / "bomb.png")


def test_files_that_are_too_large_or_no_photo_are_refused(tmp_path, monkeypatch):
    path = tmp_path / "drawing.svg"
    path.write_text('<svg xmlns="http://www.w3.org/2000/svg"/>')
    with pytest.raises(OSError, match=r"^the file must be an image, PNG, JPEG"):
        read_upload(path)
    monkeypatch.setattr(answers, "MOST_BYTES", 10)
    with pytest.raises(OSError, match=r"the file must be of at most 0 MiB, but got 0\."):
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


def test_maps_are_those_of_the_methods_and_a_sentence_tells_them(small):
    image = scene_image(600_025)
    (name, first, share), (other, second, _), *_ = rank_classes(small, image)
    plain = explain_methods(small, image, AppQuestion(first, None, ["attention-evidence", "gmar-l1"]))
    rather = explain_methods(small, image, AppQuestion(first, second, ["attention-evidence"]))
    pixels = small.pixel_values(image)
    for method, map in plain.relevance.items():
        expected = METHODS[method].load()(small.model).relevance(pixels, first)[0]
        torch.testing.assert_close(map, expected, rtol=1e-4, atol=1e-6)
    assert not torch.allclose(plain.relevance["attention-evidence"], rather.relevance["attention-evidence"])
    map = plain.relevance["attention-evidence"].numpy()
    row, column = np.unravel_index(map.argmax(), map.shape)
    speaking = map[map > 0].sum() / np.abs(map).sum()
    assert plain.sentence == (
        f"{name}, {100 * share:.3g} %. By attention-evidence, {100 * speaking:.0f} % of the patches' evidence is "
        f"for it; the strongest patch is in row {row + 1}, column {column + 1}."
    )
    assert rather.sentence.startswith(f"{name} rather than {other}, ")


def test_methods_are_measured(small):
    image = scene_image(600_025)
    figure, table = measure_methods(small, image, AppQuestion(0, 1, ["attention-evidence"]))
    assert "attention-evidence" in table
    assert figure.get_axes()


@pytest.mark.skipif(matplotlib.__version_info__ < (3, 10), reason="it draws small images up to two pixels too high")
@pytest.mark.parametrize("shape", [(300, 100), (100, 160)])
def test_a_patch_of_a_map_is_found_on_the_picture(shape, small, tmp_path, monkeypatch):
    """Every patch of the map is where the picture is as orange as the map says."""
    relevance = torch.zeros(1, 1, 1, 14, 14)
    relevance[..., 2, 11] = 1
    explained = TargetMaps(torch.zeros(1, len(small.labels)), torch.zeros(1, 1), relevance, None)
    monkeypatch.setattr(answers.Explainer, "explain", lambda *arguments: explained)
    maps = explain_methods(small, Image.new("RGB", shape, "white"), AppQuestion(0, None, ["rollout"]))
    save_picture(maps.figure, tmp_path / "maps.png")
    pixels = np.asarray(Image.open(tmp_path / "maps.png").convert("RGB")).astype(int)
    (panel,) = maps.panels
    rows, columns = np.nonzero(pixels[..., 0] - pixels[..., 2] > 150)
    places = [
        panel.find((x + 0.5) / pixels.shape[1], (y + 0.5) / pixels.shape[0]) for y, x in zip(rows, columns, strict=True)
    ]
    on_map = np.array([place for place in places if place is not None])
    assert len(on_map) > 20
    assert on_map.mean(0) == pytest.approx([11.5 / 14, 2.5 / 14], abs=0.2 / 14)  # the patch's centre
    assert panel.find(0, 0) is None


@pytest.mark.parametrize(("asked", "used"), [("gmar++", "gmar++"), ("token-evidence", "gmar-l1")])
def test_a_patch_is_explained_by_the_method_that_its_picture_names(asked, used, small):
    title = explain_patch(small, scene_image(3), 0, (0.0, 1.0), asked).get_suptitle().replace("\n", " ")
    assert title.startswith(f"what fed the patch in row 14, column 1, by {used}")
    assert (": token-evidence cannot begin at a patch" in title) == (asked != used)


def test_questions_that_cannot_be_answered(small):
    image = scene_image(3)
    with pytest.raises(ValueError, match="methods must be at least one method"):
        explain_methods(small, image, AppQuestion(0, None, []))
    with pytest.raises(ValueError, match=r"rather than a class requires methods that take it, but got rollout"):
        explain_methods(small, image, AppQuestion(0, 1, ["rollout"]))


def test_errors_are_shown_as_they_stand():
    told = as_text("must be *one* <b>, [a](b) or `c_d`: $x$")
    assert told == r"must be \*one\* \<b\>, \[a\](b) or \`c\_d\`: \$x\$"


def test_without_gradio_the_command_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setitem(__import__("sys").modules, "gradio", None)
    assert main.main(["app"]) == 2
    assert (
        'app needs Gradio, but it is not installed. Run pip install -c constraints-app.txt -e ".[app]" in a clone.'
        in capsys.readouterr().err
    )
