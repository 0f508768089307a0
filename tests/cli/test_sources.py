"""``captum-gmar explain``: bad input is told in one line, with nothing written."""

import gc
import os
import shutil

import pytest

from captum_gmar.classifier import Classifier
from captum_gmar.cli import paths
from cli.commandline import USUAL, files_of_at_most, save_photo, written


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("bert", "must be an image classifier, but is of type 'bert'"),
        ("headless", "must be a trained image classifier, but its file lacks classifier.bias and 1 more"),
        ("resnet", "cannot be explained"),
        ("nan", "NaN"),
        ("nothing", "no such folder"),
        ("vit/config.json", "it is no folder"),
        (".", "it has no config.json"),
    ],
)
def test_model_that_cannot_be_explained(run, work, models, model, message):
    assert run("photo.png", "--model", models / model, "--output", "out/", "--save-array", "a.npz").is_error(message)
    assert written(work / "out") == []
    assert written(work) == ["out", "photo.png"]


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


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "no such file"), (b"", "the file is empty"), (b"text", "not an image"), (b"\x89PNG\r\n\x1a\n", "image")],
)
def test_bad_image(run, work, models, content, message):
    if content is not None:
        (work / "bad.png").write_bytes(content)
    assert run("bad.png", "--model", models / "vit", "--output", "out/a.png").is_error(
        "bad.png cannot be read", message
    )
    assert written(work / "out") == []


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("pipe", "pipe cannot be read: it is a pipe or a device, not an image file. Pass a file."),
        ("/dev/zero", "/dev/zero cannot be read: it is a pipe or a device, not an image file."),
        ("-", "- cannot be read: no such file. Pass an image file as a file, as standard input is not read."),
        (
            "https://a.example/cat.png",
            "a.example/cat.png cannot be read: no such file. Download it first, as no address is opened.",
        ),
        ("none.png", "none.png cannot be read: no such file"),
    ],
)
def test_what_is_no_file_is_told_apart(run, work, models, name, message):
    os.mkfifo(work / "pipe")
    assert run(name, "--model", models / "vit").is_error(message)


def test_folders_where_none_fits(run, work, models):
    model = ["--model", models / "vit"]
    assert run("out", *model).is_error("out must hold image files, but holds none")
    save_photo(work / "b.png")
    result = run("photo.png", "b.png", *model, "--output", "a.png")
    assert result.is_error("--output must be a folder for 2 images, new ones with a / at the end, but got 'a.png'")
    (work / f"photo-{USUAL}.png").mkdir()
    assert run("photo.png", *model).is_error(f"photo-{USUAL}.png cannot be written: it is a folder")


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
