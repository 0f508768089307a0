"""``captum-gmar explain``: bad input is told in one line, with nothing written."""

import gc
import shutil

import pytest

from captum_gmar.classifier import Classifier
from captum_gmar.cli import paths
from cli.commandline import USUAL, files_of_at_most, written


def test_damaged_model(run, work, models):
    """How files can be damaged is told by the library; see test_loading."""
    shutil.copytree(models / "vit", work / "model")
    for text, message in (("{", "cannot be loaded"), ('{"model_type": "vit", "architectures": 5}', "a list of names")):
        (work / "model" / "config.json").write_text(text)
        assert run("photo.png", "--model", "model").is_error("--model model", message)


def test_size_that_the_model_cannot_take(run, work, models, monkeypatch):
    monkeypatch.setattr(Classifier, "_interpolates", lambda *_: False)
    result = run("photo.png", "--model", models / "vit", "--size", "64")
    assert result.is_error("64*64", "32*32")


def test_a_folder_named_as_the_picture_is_told(run, work, models):
    (work / f"photo-{USUAL}.png").mkdir()
    assert run("photo.png", "--model", models / "vit").is_error(f"photo-{USUAL}.png cannot be written: it is a folder")


@pytest.mark.parametrize("place", ["out", "out/a.png"])
def test_read_only(run, work, models, monkeypatch, place):
    (work / "out" / "a.png").write_text("as it was")
    monkeypatch.setattr(paths.os, "access", lambda path, _: str(path) != place)
    assert run("photo.png", "--model", models / "vit", "--output", "out/a.png").is_error(
        f"{place} cannot be written: it is read-only"
    )
    assert (work / "out" / "a.png").read_text() == "as it was"


@pytest.mark.fault
@pytest.mark.parametrize("suffix", ["png", "jpg", "pdf", "svg"])
def test_full_disk_leaves_nothing_half_written(run, work, models, suffix):
    picture = work / "out" / f"a.{suffix}"
    picture.write_text("as it was")
    with files_of_at_most(2000):
        result = run("photo.png", "--model", models / "vit", "--output", picture, "--save-array", "a.npz")
        gc.collect()  # what a half-written file would still say
    assert result.is_error(f"a.{suffix} cannot be written: File too large")
    assert picture.read_text() == "as it was"
    assert written(work / "out") == [picture.name]
    assert written(work) == ["out", "photo.png"]


def test_interrupt(run, work, models, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(Classifier, "logits", interrupt)
    result = run("photo.png", "--model", models / "vit")
    assert result == (130, "", "")
    assert written(work) == ["out", "photo.png"]
