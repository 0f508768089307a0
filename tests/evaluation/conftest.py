"""Small evaluations."""

import pytest
import torch

from captum_gmar import evaluate_heads
from captum_gmar.evaluation.catalogue import METRICS
from captum_gmar.evaluation.data.subject import Subject
from captum_gmar.evaluation.evaluate import make_methods
from captum_gmar.evaluation.faithfulness import Faithfulness
from captum_gmar.evaluation.settings import EvaluationSettings
from evaluation.measuring import NAMES, STEPS, SmallClassifier, pixels_of
from evaluation.small_data import LABELLED


@pytest.fixture
def make(vit):
    def logits(pixels):
        return vit(pixels).logits

    def make(data, *, forward_func=logits, pixels=pixels_of, note=print, metrics=tuple(METRICS), target="predicted"):
        settings = EvaluationSettings(NAMES, metrics, ("blur", "zero"), target, STEPS)
        classifier = SmallClassifier(vit, None, forward_func=forward_func, pixels=pixels)
        methods = make_methods(NAMES, vit, forward_func)
        return Faithfulness(settings, methods, Subject(classifier, data, "a model", "data"), note)

    return make


@pytest.fixture(scope="session")
def labelled():
    """Ten images, each of a class of its own."""
    pixels = torch.randn(LABELLED, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    return [(image, number) for number, image in enumerate(pixels)]


@pytest.fixture(scope="session")
def score(make_vit, labelled):
    """Scores heads."""
    vit = make_vit()

    def score(**options):
        return evaluate_heads(vit, labelled, **{"batch_size": 3, "target": "label", **options})

    return score


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """The results of ``whole``; tests leave them as they are."""
    return tmp_path_factory.mktemp("results") / "whole"


@pytest.fixture(scope="session")
def whole(score, folder):
    return score(output=folder)
