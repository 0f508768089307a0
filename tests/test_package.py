"""The package as it is installed: what importing it loads, and whether its files agree with each other."""

import importlib
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import torch

import captum_gmar

ROOT = Path(__file__).resolve().parents[1]


def run_fresh(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_importing_loads_nothing_heavy():
    loaded = run_fresh("import sys, captum_gmar; print(*sys.modules)").split()
    assert not {"torch", "captum", "transformers", "matplotlib", "numpy"} & set(loaded)


def test_using_it_loads_neither_transformers_nor_more_of_pyplot_than_captum():
    code = "import sys, captum.attr; before = set(sys.modules); from captum_gmar import *; "
    loaded = run_fresh(code + "print(*set(sys.modules) - before)").split()
    assert "captum_gmar.attr.gmar" in loaded
    assert not [name for name in loaded if name.split(".")[0] in ("transformers", "matplotlib")]


def test_public_names():
    assert "GMARAttribution" in captum_gmar.__all__
    assert len(captum_gmar.__all__) <= 30
    for name in captum_gmar.__all__:
        assert getattr(captum_gmar, name).__doc__
        assert name in dir(captum_gmar)
    with pytest.raises(AttributeError, match="module 'captum_gmar' has no attribute 'gmarr'"):
        captum_gmar.gmarr  # noqa: B018


@pytest.mark.parametrize("version", ["2.5.1", "2.5.1+cu124", "1.13.0a0+git1"])
def test_a_torch_too_old_says_so_where_it_is_first_needed(monkeypatch, version):
    engine = importlib.import_module("captum_gmar.engine")
    monkeypatch.setattr(torch, "__version__", version)
    with pytest.raises(ImportError) as raised:
        importlib.reload(engine)
    assert str(raised.value) == (
        f"captum_gmar needs torch 2.6 or newer, but got {version}. Update it, with pip install --upgrade torch."
    )


@pytest.mark.parametrize("version", ["2.6.0", "2.6.0a0+ecf3bae40a.nv25.01", "2.10.0+cpu", "3.0"])
def test_a_torch_that_is_new_enough(monkeypatch, version):
    engine = importlib.import_module("captum_gmar.engine")
    monkeypatch.setattr(torch, "__version__", version)
    importlib.reload(engine)


# torch's own has no build without CUDA in the registry: it is run before a release, see docs/versions.md.
RUN_BY_HAND = {"torch": "2.13.0"}


def test_the_oldest_versions_tested_are_the_lower_bounds():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    bounds = dict(requirement.split(">=") for requirement in project["dependencies"])
    assert bounds["torch"] == ".".join(map(str, importlib.import_module("captum_gmar.engine").OLDEST_TORCH))
    lines = (ROOT / "constraints-oldest.txt").read_text().splitlines()
    tested = dict(line.split("==") for line in lines if "==" in line)
    for name, bound in {**bounds, **RUN_BY_HAND}.items():
        assert tested[name].split(".")[: len(bound.split("."))] == bound.split("."), name
        assert set(tested[name].removeprefix(bound)) <= {".", "0"}, name
