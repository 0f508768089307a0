"""How the built-in model was made still runs: batches, steps, and the card."""

import json
import shutil

import pytest
import torch
from torch.testing import assert_close
from transformers import ViTForImageClassification

pytest.importorskip("tools.demo_model.train", reason="the tools are not installed; they stand in a checkout")

from captum_gmar.demo import CLASSES, load_model, make_scene, model_folder
from captum_gmar.demo.patches import GRID, PATCH, patch_shares
from tools.demo_model import card, train
from tools.training.loop import Stage
from tools.training.scenes import QUESTIONS, draw_batch, render_pool

SEED = 2_000_000


def test_targets_of_whole_scenes_are_those_of_their_masks():
    """Turned and mirrored alike: the pixels of each class add up to the areas of the scenes' own masks."""
    pool = render_pool(SEED, 3)
    for index in range(3):
        scene = make_scene(SEED + index)
        for label, mask in zip(scene.labels, scene.masks, strict=True):
            counted = pool.areas[index, ..., label].flatten().float() / PATCH**2
            assert_close(counted, patch_shares(mask))
    batch = draw_batch(pool, 16, GRID, torch.Generator().manual_seed(0))
    assert batch.pixel_values.shape == (16, 3, GRID * PATCH, GRID * PATCH)
    for shares in batch.patch_targets.split(list(QUESTIONS), dim=-1):
        assert_close(shares.sum(-1), torch.ones(16, GRID**2))
    assert_close(batch.class_targets.sum(1), torch.ones(16))


def test_training_writes_a_model_that_loads(tmp_path, monkeypatch):
    monkeypatch.setattr(train, "write_card", lambda folder: None)
    stages = [Stage(side=side, scenes=4, steps=1, batch_size=4, rates=(1e-3, 1e-4)) for side in (7, GRID)]
    train.train(tmp_path, stages=stages)
    assert {path.name for path in tmp_path.iterdir()} == {
        "config.json",
        "model.safetensors",
        "preprocessor_config.json",
        "training.json",
    }
    model = ViTForImageClassification.from_pretrained(tmp_path)
    assert tuple(model.config.id2label[index] for index in range(len(CLASSES))) == CLASSES
    record = json.loads((tmp_path / "training.json").read_text())
    with model_folder() as shipped:
        assert (tmp_path / "preprocessor_config.json").read_text() == (shipped / "preprocessor_config.json").read_text()
        assert set(record) == set(json.loads((shipped / "training.json").read_text()))
    assert (record["last_scene_seed"] - record["first_scene_seed"], record["steps"]) == (
        7,
        "1 steps of 4 images, then 1 steps of 4 images",
    )


def test_the_card_is_that_of_the_shipped_model(tmp_path, monkeypatch):
    """Measured on a few scenes only: every line that is no measurement stands in the shipped card as well."""
    with model_folder() as shipped:
        shutil.copytree(shipped, tmp_path, dirs_exist_ok=True)
        lines = (shipped / "README.md").read_text().splitlines()
    for name, value in {"HELD_OUT_SEEDS": range(500_000, 500_004), "_LOOKED_AT_SEEDS": range(500_000, 500_004)}.items():
        monkeypatch.setattr(card, name, value)
    monkeypatch.setattr(card, "_LOCALISED", 2)
    monkeypatch.setattr(card, "comparison_methods", lambda model: {})
    card.write_card(tmp_path)
    written = (tmp_path / "README.md").read_text().splitlines()
    words = [line for line in written if not any(sign.isdigit() for sign in line)]
    assert len(words) > 60
    assert [line for line in words if line not in lines] == []


def test_the_built_in_model_is_rounded():
    weights = load_model().parameters()
    assert all(not (weight.detach().view(torch.int32) % train.SPARED).any() for weight in weights)
