"""Every entry of the tables exists, and a new row is a new metric."""

import pytest
import torch

from captum_gmar import evaluate
from captum_gmar.evaluation.catalogue import (
    DIFFERENCE,
    METRICS,
    REMOVALS,
    arrow,
    default_metrics,
    make_removal,
    metrics_of,
)
from captum_gmar.metrics import Noise, Zero

IMAGES = [(torch.randn(3, 32, 32, generator=torch.Generator().manual_seed(0)), 0, [(0, 0, 16, 16)])]


@pytest.mark.parametrize("name", REMOVALS)
def test_removals(name, vit):
    removal = make_removal(name, vit, seed=3)
    outputs = removal(lambda images: vit(images).logits, IMAGES[0][0][None], torch.ones(1, 2, 4, 4, dtype=torch.bool))
    assert outputs.shape == (2, vit.config.num_labels)
    assert removal.name


def test_seeds_reach_what_is_drawn(vit):
    assert make_removal("noise", vit, seed=3) == Noise(seed=3)
    assert make_removal("zero", vit, seed=3) == Zero()
    with pytest.raises(ValueError, match=r"removals must be of zero, .*, but got 'blurr'. Try blur"):
        make_removal("blurr", vit)


def test_defaults_and_directions():
    assert default_metrics(has_objects=False) == tuple(METRICS)[:5]
    assert default_metrics(has_objects=True) == tuple(METRICS)[:8]
    removing = "insertion deletion srg srg-probability mif lif mif-accuracy lif-accuracy aopc class-gain"
    assert metrics_of("curve") == tuple(removing.split())
    assert [arrow(name) for name in ("insertion", "deletion", "class-sensitivity", DIFFERENCE)] == ["↑", "↓", "", "↑"]


def test_one_row_is_one_more_metric(vit, monkeypatch):
    """Add the pointing game by another name."""
    row = METRICS["pointing-game"]._replace(name="another", better="lower")
    for module in ("catalogue", "settings", "measurement.measures"):
        monkeypatch.setattr(f"captum_gmar.evaluation.{module}.METRICS", {**METRICS, "another": row})
    evaluation = evaluate(vit, IMAGES, ["rollout"], metrics=["pointing-game", "another"])
    values = [
        [r["value"] for r in evaluation.records() if r["metric"] == name] for name in ("pointing-game", "another")
    ]
    assert values[0] == values[1]
    assert "another ↓" in evaluation.to_markdown()
