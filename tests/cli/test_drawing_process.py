"""Pictures that a process draws while the next images are explained."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import BrokenExecutor, Executor
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from captum_gmar.cli import drawing_process
from captum_gmar.cli.drawing_process import WORTH_A_PROCESS, DrawingHere, draw_and_save, open_drawing
from captum_gmar.cli.image_picture import ImagePicture, PictureMap
from cli.commandline import Result, Run, save_photo

NAMES = ("a", "b", "c", "d")


@pytest.fixture(scope="module")
def process() -> Iterator[Executor]:
    with open_drawing(WORTH_A_PROCESS) as drawing:
        yield drawing


@pytest.fixture
def explain(run: Run, work: Path, models: Path, monkeypatch: pytest.MonkeyPatch):
    """Explains four images, two at once, of which the third is damaged; their pictures by this drawing."""
    for seed, name in enumerate(NAMES):
        save_photo(work / f"{name}.png", seed)
    (work / "c.png").write_bytes(b"damaged")

    def explain(drawing: Executor, folder: str) -> Result:
        drawing.shutdown = lambda *_, **__: None  # type: ignore[method-assign]  # the module's process stays
        monkeypatch.setattr("captum_gmar.cli.explain_images.open_drawing", lambda _: drawing)
        photos = [f"{name}.png" for name in NAMES]
        return run(*photos, "--model", models / "vit", "--batch-size", 2, "--output", f"{folder}/")

    return explain


@pytest.mark.skipif(os.cpu_count() == 1, reason="a machine of one core draws between the images")
def test_only_many_pictures_are_worth_a_process(process: Executor) -> None:
    assert not isinstance(process, DrawingHere)
    assert isinstance(open_drawing(WORTH_A_PROCESS - 1), DrawingHere)


def test_pictures_and_texts_are_the_same(explain, process: Executor, work: Path) -> None:
    here, beside = explain(DrawingHere(), "here"), explain(process, "beside")
    assert here.status == beside.status == 1
    assert beside.out == here.out.replace("here/", "beside/")
    assert beside.err == here.err
    assert here.err.startswith("captum-gmar: error: c.png: ")
    for name in ("a", "b", "d"):
        assert (work / f"beside/{name}-gmar-l1.png").read_bytes() == (work / f"here/{name}-gmar-l1.png").read_bytes()


def test_picture_that_cannot_be_written_fails_alone(process: Executor, work: Path) -> None:
    picture = ImagePicture(np.zeros((4, 4, 3)), "title", [PictureMap("gmar-l1", np.ones((2, 2)), "label", "")])
    failed, drawn = (process.submit(draw_and_save, picture, work / place) for place in ("photo.png/a.png", "out/a.png"))
    assert isinstance(failed.exception(), OSError)
    assert drawn.exception() is None
    assert (work / "out/a.png").is_file()


def test_process_that_is_killed_costs_no_other_picture(explain, work: Path) -> None:
    with open_drawing(WORTH_A_PROCESS) as drawing:
        with pytest.raises(BrokenExecutor):
            drawing.submit(os._exit, 1).result()
        assert explain(drawing, "out").out.count("  picture    ") == 3
    assert all((work / f"out/{name}-gmar-l1.png").is_file() for name in ("a", "b", "d"))


def test_process_ends_with_its_killed_parent() -> None:
    code = f"""
import os, {drawing_process.__name__} as module
if __name__ == "__main__":
    print(module.open_drawing(module.WORTH_A_PROCESS).submit(os.getpid).result(), flush=True)
    os.kill(os.getpid(), 9)
"""
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=False)
    process = int(done.stdout)
    with suppress(ProcessLookupError):
        for _ in range(100):
            os.kill(process, 0)
            time.sleep(0.05)
        pytest.fail("the process that draws was left behind")
