"""The notebooks are committed without output. The site runs them, and fails where one warns or draws nothing."""

import json
import re
from pathlib import Path

import pytest
from matplotlib.colors import CSS4_COLORS

from captum_gmar.visualization._style import SIGNS

FOLDER = Path(__file__).resolve().parents[1] / "notebooks"
NAMES = sorted(path.stem for path in FOLDER.glob("*.ipynb"))


def test_there_are_notebooks():
    assert NAMES


@pytest.mark.parametrize("name", NAMES)
def test_committed_without_output(name):
    cells = json.loads((FOLDER / f"{name}.ipynb").read_text(encoding="utf-8"))["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert code
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)


@pytest.mark.parametrize("name", NAMES)
def test_signs_have_the_colours_that_pictures_give_them(name):
    cells = json.loads((FOLDER / f"{name}.ipynb").read_text(encoding="utf-8"))["cells"]
    text = " ".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown").lower()
    told = [sentence for sentence in re.split(r"[.:]\s", text) if "against" in sentence]
    colours = {word for sentence in told for word in re.findall(r"\w+", sentence) if word in CSS4_COLORS}
    assert colours <= set(re.findall(r"\w+", SIGNS))
