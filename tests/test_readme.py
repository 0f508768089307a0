"""The README does what it says: its Python blocks run from top to bottom, and its commands and the site's do, on small
models."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
from classifiers import save_clip_of_texts
from families import TINY_IMAGE
from installed import HAS_TRANSFORMERS_5
from matplotlib import pyplot as plt
from PIL import Image
from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

from captum_gmar.cli import main as command_line

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "docs" / "how-to").glob("*.md"))]


def blocks(path):
    """Language and code of every block."""
    return re.findall(r"^```(\w*)\n(.*?)^```$", path.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


PYTHON = [code for language, code in blocks(README) if language == "python"]
# Of the site as well, each once. Those that made the results take trained models and hours.
PLAIN = [code for path in PAGES for language, code in blocks(path) if not language]
TOLD = [line for code in PLAIN for line in re.sub(r"\\\n\s*", "", code).splitlines()]  # a command may take lines
COMMAND = re.compile(r"(captum-gmar|torchrun)\b(?!.*docs/)")
COMMANDS = sorted({line for line in TOLD if COMMAND.match(line)})
# What pages name stands for a small random model and drawn pictures, which are there without a network.
MODELS = ("google/vit-base-patch16-224", "PATH")
OTHER_MODELS = ("openai/clip-vit-base-patch16", "llava-hf/llava-1.5-7b-hf", "answering-model")
LABELS = {281: "tabby, tabby cat", 282: "tiger cat", 292: "tiger, Panthera tigris", 340: "zebra"}


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory):
    """A random classifier of 1000 classes and 224x224 pixels, with its processor."""
    folder = tmp_path_factory.mktemp("readme") / "vit"
    names = {index: LABELS.get(index, f"class number {index}") for index in range(1000)}
    shape = {**TINY_IMAGE, "image_size": 224, "patch_size": 16, "num_hidden_layers": 2, "num_labels": 1000}
    shape["num_attention_heads"] = 6  # of which ten can be silenced
    torch.manual_seed(0)
    ViTForImageClassification(ViTConfig(**shape, id2label=names)).save_pretrained(folder)
    ViTImageProcessor(size={"height": 224, "width": 224}).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def text_model_folder(tmp_path_factory):
    """A model that scores images against texts."""
    folder = tmp_path_factory.mktemp("readme") / "clip"
    save_clip_of_texts(folder)
    return folder


@pytest.fixture(scope="module")
def answering_model_folder(tmp_path_factory):
    """A model that answers about images."""
    if not HAS_TRANSFORMERS_5:
        pytest.skip("answers are explained with transformers 5 or newer")
    from answering import save_answering_model

    folder = tmp_path_factory.mktemp("readme") / "answering"
    save_answering_model(folder)
    return folder


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty folder with the photos that the README speaks of."""
    pixels = np.random.default_rng(0).integers(0, 256, (3, 240, 320, 3), dtype=np.uint8)
    for name, image in zip(("photo.jpg", "photos/tiger/1.jpg", "photos/zebra/2.jpg"), pixels, strict=True):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    Image.fromarray(pixels[0]).save(tmp_path / "scene.png")
    (tmp_path / "photos.csv").write_text("path,label\nphotos/tiger/1.jpg,tiger\nphotos/zebra/2.jpg,zebra\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_there_are_blocks():
    assert PYTHON
    assert len(COMMANDS) >= 15


def test_python_blocks_run_from_top_to_bottom(here, model_folder):
    """In one namespace, as somebody who copies them one after the other has it."""
    names = {}
    for block in PYTHON:
        for name in MODELS:
            block = block.replace(f'"{name}"', repr(str(model_folder)))
        exec(compile(block, "README.md", "exec"), names)
        plt.close("all")
    assert {"attributions", "relevance", "comparison"} <= set(names)


@pytest.mark.parametrize("line", COMMANDS)
def test_commands_run(line, here, request, capsys):
    """Those of several processes, of all methods, and of models that do not classify images, are read only: other tests
    run them, on less."""
    _, _, arguments = line.partition("captum-gmar " if line.startswith("captum-gmar") else "-m captum_gmar ")
    words = shlex.split(arguments)
    kind = {"--text": "text_model_folder", "--prompt": "answering_model_folder"}
    folder = next((name for option, name in kind.items() if option in words), "model_folder")
    if folder != "model_folder" or not {*MODELS, *OTHER_MODELS}.isdisjoint(words):
        stand_in = str(request.getfixturevalue(folder))
        words = [stand_in if word in (*MODELS, *OTHER_MODELS) else word for word in words]
    if line.startswith("torchrun") or any(part in line for part in ("--methods all", "--box", "clip.mp4", "speech")):
        assert command_line._parser().parse_args(words).run
        return
    if words[0] == "explain" and "photos/" in words:  # of one folder, which has no subfolder for each class
        for path in here.glob("photos/*/*.jpg"):
            path.rename(here / "photos" / path.name)
    before = set(here.rglob("*"))
    assert command_line.main(words) == 0, capsys.readouterr().err
    assert set(here.rglob("*")) > before
