"""Small evaluations."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from transformers import ViTForImageClassification

from captum_gmar import evaluate_heads
from captum_gmar.evaluation.catalogue import METRICS
from captum_gmar.evaluation.data.example import Example
from captum_gmar.evaluation.data.subject import Subject
from captum_gmar.evaluation.evaluate import make_methods
from captum_gmar.evaluation.faithfulness import Faithfulness
from captum_gmar.evaluation.reports.head_report import HeadResults
from captum_gmar.evaluation.settings import EvaluationSettings
from evaluation.measuring import NAMES, STEPS, Make, SmallClassifier, pixels_of
from evaluation.small_data import LABELLED, Labelled


@pytest.fixture
def make(vit: ViTForImageClassification) -> Make:
    def logits(pixels: Tensor) -> Tensor:
        return vit(pixels).logits

    def make(
        data: list[Example],
        *,
        forward_func: Callable[[Tensor], Tensor] = logits,
        pixels: Callable[[Image.Image], Tensor] = pixels_of,
        note: Callable[[str], None] = print,
        metrics: tuple[str, ...] = tuple(METRICS),
        target: str = "predicted",
    ) -> Faithfulness:
        settings = EvaluationSettings(NAMES, metrics, ("blur", "zero"), target, STEPS)
        classifier = SmallClassifier(vit, None, forward_func=forward_func, pixels=pixels)
        methods = make_methods(NAMES, vit, forward_func)
        return Faithfulness(settings, methods, Subject(classifier, data, "a model", "data"), note)

    return make


@pytest.fixture(scope="session")
def labelled() -> Labelled:
    """Ten images, each of a class of its own."""
    pixels = torch.randn(LABELLED, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    return [(image, number) for number, image in enumerate(pixels)]


@pytest.fixture(scope="session")
def ablate(make_vit: Callable[..., nn.Module], labelled: Labelled) -> Callable[..., HeadResults]:
    """Scores heads and silences them, against three random orders."""
    vit = make_vit()

    def ablate(**options: Any) -> HeadResults:
        usual = {"ablate": True, "random_orders": 3, "batch_size": 3, "target": "label"}
        return evaluate_heads(vit, labelled, **{**usual, **options})

    return ablate


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of ``whole``; tests leave them as they are."""
    return tmp_path_factory.mktemp("results") / "whole"


@pytest.fixture(scope="session")
def whole(ablate: Callable[..., HeadResults], folder: Path) -> HeadResults:
    return ablate(output=folder)
