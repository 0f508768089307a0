"""Evaluation of video classifiers against the metrics called on the videos themselves."""

import pytest
import torch
from torch.testing import assert_close
from transformers import (
    TimesformerConfig,
    TimesformerForVideoClassification,
    VideoMAEConfig,
    VideoMAEForVideoClassification,
    VivitConfig,
    VivitForVideoClassification,
)

from captum_gmar import AttentionEvidence, evaluate, get_method
from captum_gmar.metrics import Zero, deletion

FRAMES, SIDE, PATCH = 4, 24, 8
SMALL = {"hidden_size": 16, "num_attention_heads": 2, "num_hidden_layers": 2, "intermediate_size": 32}
OF_FRAMES = {"num_frames": FRAMES, "image_size": SIDE, "num_labels": 3, **SMALL}
MODELS = {
    "VideoMAE": (VideoMAEForVideoClassification, VideoMAEConfig(**OF_FRAMES, patch_size=PATCH, tubelet_size=2), 2),
    "ViViT": (VivitForVideoClassification, VivitConfig(**OF_FRAMES, tubelet_size=[2, PATCH, PATCH]), 2),
    "TimeSformer": (TimesformerForVideoClassification, TimesformerConfig(**OF_FRAMES, patch_size=PATCH), 1),
}


def make(name):
    torch.manual_seed(0)
    kind, config, tube = MODELS[name]
    return kind(config).eval(), torch.randn(3, FRAMES, 3, SIDE, SIDE), tube


@pytest.mark.parametrize("name", MODELS)
def test_as_the_metrics_have_it(name):
    model, videos, tube = make(name)
    targets = model(videos).logits.argmax(1)
    relevance = AttentionEvidence(model).relevance(videos, targets)
    assert relevance.shape == (3, FRAMES // tube, SIDE // PATCH, SIDE // PATCH)
    evaluation = evaluate(model, list(videos), ["attention-evidence"], metrics=["deletion"], removals=["zero"], steps=4)
    rows = [row for row in evaluation.records() if row["method"] == "attention-evidence"]
    expected = deletion(lambda videos: model(videos).logits, videos, relevance, targets, steps=4, removal=Zero())
    assert_close(torch.tensor([row["value"] for row in rows]), expected.auc, rtol=1e-4, atol=1e-6)


def test_masks_and_captums_methods():
    model, videos, _ = make("VideoMAE")
    masks = torch.zeros(3, FRAMES, SIDE, SIDE, dtype=torch.bool)
    masks[:, 1, :PATCH] = True  # in one of the first tube's frames: on the tube
    data = [(video, label, mask) for label, (video, mask) in enumerate(zip(videos, masks, strict=True))]
    evaluation = evaluate(model, data, ["saliency"], metrics=["relevance-mass"], target="label")
    rows = [row["value"] for row in evaluation.records() if row["method"] == "saliency"]
    saliency = get_method("saliency", model).attribute(videos, target=[0, 1, 2])
    share = saliency[:, :2, :, :PATCH].sum((1, 2, 3, 4)) / saliency.sum((1, 2, 3, 4))
    assert_close(torch.tensor(rows), share, rtol=1e-4, atol=1e-6)
    blob = next(row["value"] for row in evaluation.records() if row["method"] == "centre blob")
    height = torch.exp(-2 * ((torch.arange(SIDE) * 2 + 1) / SIDE - 1) ** 2)
    assert blob == pytest.approx(float(height[:PATCH].sum() / height.sum()) / 2, abs=1e-5)  # in one of two moments


@pytest.mark.parametrize(
    ("data", "options", "error", "says"),
    [
        (lambda v: list(v[:, :2]), {}, ValueError, r"of shape \(4 frames, channels.*but got \(2, 3, 24, 24\)"),
        (lambda v: [(v[0], 0, torch.ones(SIDE, SIDE))], {}, ValueError, r"of shape \(4 frames, height, width\)"),
        (lambda v: [(v[0], 0, [(0, 0, 4, 4)])], {}, ValueError, "must have masks"),
        (list, {"removals": ["tokens"]}, TypeError, "removal must replace pixels of videos"),
        (list, {"metrics": ["gridpg"]}, ValueError, "gridpg require images"),
        (lambda v: [v[0, 0]], {}, ValueError, r"must be a floating-point tensor \(frames, channels, height, width\)"),
    ],
)
def test_bad_input(data, options, error, says, tmp_path):
    model, videos, _ = make("VideoMAE")
    with pytest.raises(error, match=says):
        evaluate(model, data(videos), ["saliency"], output=tmp_path / "results", **{"metrics": ["deletion"], **options})
