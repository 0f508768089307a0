"""A folder to work in, and the command."""

import sys
from collections.abc import Iterator
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from torch import Tensor

from captum_gmar.cli import main as cli
from cli.commandline import Result, Run, save_photo

CHECKOUT = Path(__file__).resolve().parents[2]


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: ``photo.png`` and an empty folder ``out``."""
    monkeypatch.chdir(tmp_path)
    save_photo(tmp_path / "photo.png")
    (tmp_path / "out").mkdir()
    return tmp_path


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs the command in this process."""

    def run(*arguments: object) -> Result:
        capsys.readouterr()  # what the test itself has printed
        try:
            status = cli.main(["explain", *map(str, arguments)])
        except SystemExit as end:
            status = int(end.code or 0)
        return Result(status, *capsys.readouterr())

    return run


@pytest.fixture(scope="session")
def nursery(models: Path) -> Iterator[Any]:
    """Runs of the installed command in processes of their own, which start at once; without pictures."""
    spec = spec_from_file_location("nursery", CHECKOUT / "tools" / "bad_input" / "nursery.py")
    assert spec
    assert spec.loader
    sys.modules["nursery"] = module = module_from_spec(spec)
    spec.loader.exec_module(module)
    with module.Nursery(models / "vit", draws=False) as nursery:
        yield nursery


@pytest.fixture
def pixels(work: Path, loaded: tuple[Any, Any]) -> Tensor:
    """Of ``photo.png``, as the model "vit" takes them."""
    return loaded[1](Image.open(work / "photo.png"), return_tensors="pt")["pixel_values"]
