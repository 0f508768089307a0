"""A folder to work in, and the command."""

import os
from functools import partial

import pytest
import torch
from PIL import Image

from captum_gmar.classifier import Classifier
from captum_gmar.cli import main as cli
from cli.commandline import Result, save_photo


@pytest.fixture
def work(tmp_path, monkeypatch):
    """The current folder: ``photo.png`` and an empty folder ``out``."""
    monkeypatch.chdir(tmp_path)
    save_photo(tmp_path / "photo.png")
    (tmp_path / "out").mkdir()
    return tmp_path


@pytest.fixture
def run(command):
    """Return a function that runs ``captum-gmar explain`` in this process."""
    return partial(command, "explain")


@pytest.fixture
def command(capsys):
    """Return a function that runs any command in this process."""

    def run(*arguments):
        capsys.readouterr()
        try:
            status = cli.main(list(map(str, arguments)))
        except SystemExit as end:
            status = int(end.code or 0)
        return Result(status, *capsys.readouterr())

    return run


@pytest.fixture
def pixels(work, loaded):
    """Pixel values of ``photo.png`` for the model "vit"."""
    return loaded[1](Image.open(work / "photo.png"), return_tensors="pt")["pixel_values"]


@pytest.fixture
def place(work, models):
    """The current folder, with a folder of photos, a table of them, the model and what is no file to read."""
    (work / "photos").mkdir()
    for seed in range(2):
        save_photo(work / "photos" / f"{seed}.png", seed)
    (work / "photos.csv").write_text("path,label\nphotos/0.png,0\nphotos/1.png,1\n")
    (work / "vit").symlink_to(models / "vit")
    (work / "models").symlink_to(models)
    (work / "photo.txt").write_text("text")
    (work / "broken.png").write_bytes(b"text")
    (work / "empty.png").touch()
    os.mkfifo(work / "pipe.png")
    (work / "loop.png").symlink_to("loop.png")
    (work / "dangling.png").symlink_to("nothing.png")
    return work


@pytest.fixture
def refuses(place, command):
    """Checks that a command ends in one line that holds all of these, and leaves the folder as it was."""
    before = sorted(place.rglob("*"))

    def refuses(*words, says=""):
        done = command(*words)
        assert done.is_error(says), (words, done)
        assert sorted(place.rglob("*")) == before, words

    return refuses


@pytest.fixture
def passes(monkeypatch):
    """The number of images in each pass of the model that the classifier is asked for, in order."""
    sizes, logits = [], Classifier.logits

    def counted(self, pixels):
        sizes.append(len(pixels))
        return logits(self, pixels)

    monkeypatch.setattr(Classifier, "logits", counted)
    return sizes


@pytest.fixture
def damage(monkeypatch):
    """Return a function that makes the pixel values of an image file NaN."""
    whole = Classifier.pixel_values

    def damage(path):
        bad = Image.open(path).convert("RGB").tobytes()

        def pixel_values(self, image):
            return whole(self, image) * (torch.nan if image.tobytes() == bad else 1)

        monkeypatch.setattr(Classifier, "pixel_values", pixel_values)

    return damage
