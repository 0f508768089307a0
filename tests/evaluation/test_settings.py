"""Settings that are refused."""

import pytest

from captum_gmar.attr.catalogue import unique_names
from captum_gmar.evaluation.settings import EvaluationSettings, HeadSettings


@pytest.mark.parametrize(
    ("settings", "changes", "message"),
    [
        (EvaluationSettings, {"metrics": ("speed",)}, r"metrics must be of insertion, .*, but got 'speed'"),
        (EvaluationSettings, {"metrics": ()}, "metrics must be at least one name"),
        (EvaluationSettings, {"methods": ()}, "methods must be at least one name"),
        (EvaluationSettings, {"removals": ("fire",)}, "removals must be of zero, mean, blur"),
        (EvaluationSettings, {"target": "top1"}, "target must be 'predicted' or 'label', but got 'top1'"),
        (EvaluationSettings, {"precision": "float16"}, "precision must be 'float32' or 'bfloat16'"),
        (EvaluationSettings, {"steps": 0}, "steps must be an integer, one or more"),
        (EvaluationSettings, {"limit": 1.5}, "limit must be an integer, one or more"),
        (EvaluationSettings, {"seed": -1}, "seed must be an integer, zero or more"),
        (HeadSettings, {"scores": ()}, r"scores must hold at least one, but got none"),
        (HeadSettings, {"limit": 0}, r"limit must be an integer, one or more, but got 0"),
        (HeadSettings, {"seed": -1}, r"seed must be an integer, zero or more, but got -1"),
        (HeadSettings, {"batch_size": True}, r"batch_size must be an integer, one or more, but got True"),
    ],
)
def test_bad_settings(settings, changes, message):
    usual = {"methods": ("rollout",)} if settings is EvaluationSettings else {}
    with pytest.raises(ValueError, match=message):
        settings(**{**usual, **changes})


def test_names_are_a_sequence_each_once():
    assert unique_names(["b", "a", "b"], "metrics") == ("b", "a")
    with pytest.raises(TypeError, match=r"metrics must be a sequence of names.* Pass \[name\]"):
        unique_names("insertion", "metrics")
