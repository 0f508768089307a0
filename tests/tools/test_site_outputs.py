"""What the site makes of notebooks' outputs, by the settings of ``docs/conf.py``."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from captum_gmar import compare
from captum_gmar.inspection.class_page import ClassPage

pytest.importorskip("tools.site.tutorials", reason="the site's packages are not installed")
SETTINGS = Path(__file__).resolve().parents[2] / "docs" / "conf.py"


def notebook_settings():
    """Return the lines of the site's settings that are of notebooks, which here are not run."""
    lines = ast.parse(SETTINGS.read_text(encoding="utf-8")).body
    kept = [ast.unparse(line) for line in lines if ast.unparse(line).startswith("nb_")]
    kept = [line for line in kept if not line.startswith("nb_execution")]
    own = ['extensions = ["myst_nb", "tools.site.tutorials"]', 'html_theme = "basic"', 'nb_execution_mode = "off"']
    return "\n".join([*own, 'exclude_patterns = ["jupyter_execute"]', *kept])


def notebook(*outputs):
    """Return a notebook of one cell with these outputs, which keeps the state of a widget as Jupyter does."""
    shown = [{"output_type": "display_data", "metadata": {}, "data": output} for output in outputs]
    code = {"cell_type": "code", "id": "a", "metadata": {}, "source": "all", "execution_count": 1, "outputs": shown}
    state = {"version_major": 2, "version_minor": 0, "state": {"a": {"model_name": "LayoutModel", "state": {}}}}
    kept = {"widgets": {"application/vnd.jupyter.widget-state+json": state}, "language_info": {"name": "python"}}
    title = {"cell_type": "markdown", "id": "b", "metadata": {}, "source": "# A page"}
    return json.dumps({"nbformat": 4, "nbformat_minor": 5, "metadata": kept, "cells": [title, code]})


def test_a_comparison_is_a_table_and_a_page_itself(vit, images, tmp_path):
    one = images[:1]
    comparison = compare(vit, one, ["rollout"], 0, steps=4, repeats=1)
    framed = ClassPage(vit, one, Image.new("RGB", (32, 32)))._repr_html_()
    outputs = {"text/plain": "", "text/markdown": comparison._repr_markdown_()}, {"text/plain": "", "text/html": framed}
    (tmp_path / "conf.py").write_text(notebook_settings(), encoding="utf-8")
    (tmp_path / "index.ipynb").write_text(notebook(*outputs), encoding="utf-8")
    build = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", str(tmp_path), str(tmp_path / "out")]
    built = subprocess.run(build, capture_output=True, text=True, cwd=SETTINGS.parents[1], check=False)
    assert built.stderr == ""
    page = (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    assert page.count("<table") == 1
    assert "| rollout" not in page
    assert framed in page
    assert "widget-state" not in page  # with which scripts would come from elsewhere
