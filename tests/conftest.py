"""Models and images for the tests."""

import gc
import os
from functools import cache
from pathlib import Path

import pytest
import torch
from classifiers import save_models
from families import TINY_IMAGE
from moulds import Mould
from pictures import leave_blank
from transformers import ViTConfig, ViTForImageClassification

from captum_gmar.classifier import load_classifier

# On models this small, several threads wait for each other most of the time; and they round otherwise than one.
torch.set_num_threads(1)
os.environ["OMP_NUM_THREADS"] = "1"  # of processes that tests start


def pytest_collection_finish():
    """What is loaded stays: the garbage collector, which some tests call, need not look through it each time."""
    gc.collect()
    gc.freeze()


TINY = {**TINY_IMAGE, "initializer_range": 0.3}


@pytest.fixture(scope="session")
def shared():
    """The folder with trained weights and photos, whose licences keep them out of the repository."""
    folder = Path(__file__).resolve().parents[2] / "shared"
    if not (folder / "models").is_dir():
        pytest.skip("../shared with the trained model and photos is absent")
    return folder


@pytest.fixture(scope="session")
def deit(shared):
    """The trained model. Tests leave it as it is."""
    return ViTForImageClassification.from_pretrained(shared / "models" / "deit-tiny-patch16-224").eval()


@pytest.fixture(scope="session")
def make_vit():
    """A small random ViT, a new one with each call; keywords change its configuration."""

    @cache
    def mould(seed, **changes):
        def make():
            torch.manual_seed(seed)
            return ViTForImageClassification(ViTConfig(**{**TINY, **changes})).eval()

        return Mould(make)

    def make(seed=0, **changes):
        return mould(seed, **changes).cast()

    return make


@pytest.fixture
def vit(make_vit):
    return make_vit()


@pytest.fixture
def images():
    return torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def drawn():
    """Asked for by tests that look at pictures."""


@pytest.fixture
def blank_pictures(request, monkeypatch):
    """Leave pictures of runs in this process blank, but where a test looks at them."""
    if "drawn" not in request.fixturenames:
        leave_blank(monkeypatch)


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    """A folder of folders with small random models."""
    folder = tmp_path_factory.mktemp("models")
    save_models(folder)
    return folder


@pytest.fixture(scope="session")
def task_models(tmp_path_factory):
    """Return a folder of models that detect, segment, or classify videos or sounds, with their processors."""
    from task_models import make  # which imports transformers' models of all tasks

    folder = tmp_path_factory.mktemp("tasks")
    for name, parts in make().items():
        for part in parts:
            part.save_pretrained(folder / name)
    return folder


@pytest.fixture(scope="session")
def classifier(models):
    """The model "vit" with its image processor."""
    return load_classifier(models / "vit")


@pytest.fixture(scope="session")
def loaded(classifier):
    """The model "vit" and its image processor."""
    return classifier.model, classifier.processor
