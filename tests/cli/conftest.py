"""A folder to work in, and the command."""

from functools import partial

import pytest
from PIL import Image

from captum_gmar.cli import main as cli
from cli.commandline import Result, save_photo
from cli.nursery import Nursery


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


@pytest.fixture(scope="session")
def nursery(models):
    """Runs of the installed command in processes of their own, which start at once; without pictures."""
    with Nursery(models / "vit") as nursery:
        yield nursery


@pytest.fixture
def pixels(work, loaded):
    """Pixel values of ``photo.png`` for the model "vit"."""
    return loaded[1](Image.open(work / "photo.png"), return_tensors="pt")["pixel_values"]
