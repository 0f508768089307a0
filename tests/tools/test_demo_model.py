"""How the built-in model was made still runs: batches, steps, a stop between them, and the card."""

import json
import shutil
from concurrent.futures import Executor, Future

import pytest
import torch
from torch.testing import assert_close
from transformers import ViTForImageClassification

pytest.importorskip("tools.demo_model.train", reason="the tools are not installed; they stand in a checkout")

from captum_gmar.demo import CLASSES, load_model, make_scene, model_folder
from captum_gmar.demo.patches import GRID, PATCH, patch_shares
from tools.demo_model import batches, card, gradients, train
from tools.demo_model.batches import QUESTIONS, draw_batch, render_pool
from tools.demo_model.fitting import Fit, Stage
from tools.demo_model.gradients import Task
from tools.demo_model.network import build_model, grow

SEED = 2_000_000
CROPS = Stage(side=7, scenes=6, steps=3, batch_size=8, rates=(1e-3, 1e-3))


class HereAtOnce(Executor):
    """Runs what it is given in this process, where other executors start their own."""

    def __init__(self, *workers, initializer=lambda: None, initargs=(), **options):
        initializer(*initargs)

    def submit(self, function, /, *arguments, **options):
        future = Future()
        future.set_result(function(*arguments, **options))
        return future


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch):
    for module in (batches, gradients):
        monkeypatch.setattr(module, "ProcessPoolExecutor", HereAtOnce)
    monkeypatch.setattr(gradients, "_task", None)


def new_fit(side=7, seed=0):
    torch.manual_seed(seed)
    model, heads = build_model(side).train(), train._build_heads()
    return Fit(Task(model, heads, render_pool(SEED, 6, workers=1), 8, side, seed), CROPS)


def test_targets_of_whole_scenes_are_those_of_their_masks():
    """Turned and mirrored alike: the pixels of each class add up to the areas of the scenes' own masks."""
    pool = render_pool(SEED, 3, workers=1)
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


def test_a_model_for_crops_grows_into_one_for_scenes():
    crops = build_model(7)
    scenes = grow(crops)
    positions = "vit.embeddings.position_embeddings"
    assert not crops.get_parameter(positions).requires_grad
    assert scenes.get_parameter(positions).shape[1] == 1 + GRID**2
    assert scenes(torch.zeros(1, 3, GRID * PATCH, GRID * PATCH)).logits.shape == (1, len(CLASSES))


def test_stopped_and_taken_up_again_it_is_as_if_it_had_never_stopped():
    whole = new_fit()
    losses = list(whole.run(workers=1))
    first = new_fit()
    steps = first.run(workers=1)
    next(steps)
    other = new_fit(seed=5).task  # other weights, which the state replaces
    second = Fit(Task(other.model, other.heads, whole.task.pool, 8, 7, 0), CROPS)
    second.load_state(first.state())
    assert list(second.run(workers=1)) == losses[1:]
    assert_close(second.task.model.state_dict(), whole.task.model.state_dict(), rtol=0, atol=0)


def test_training_writes_a_model_that_loads(tmp_path, monkeypatch):
    monkeypatch.setattr(train, "write_card", lambda folder: None)
    stages = [Stage(side=side, scenes=4, steps=1, batch_size=4, rates=(1e-3, 1e-4)) for side in (7, GRID)]
    train.train(tmp_path, stages=stages, workers=1)
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


def test_rounded_weights_are_near_and_short():
    torch.manual_seed(0)
    model = build_model(7)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    train.round_weights(model)
    for parameter, exact in zip(model.parameters(), before, strict=True):
        assert ((parameter - exact).abs() <= 2**-20 * exact.abs()).all()
        assert not (parameter.detach().view(torch.int32) % train.SPARED).any()
    assert any((parameter != exact).any() for parameter, exact in zip(model.parameters(), before, strict=True))


def test_the_built_in_model_is_rounded():
    weights = load_model().parameters()
    assert all(not (weight.detach().view(torch.int32) % train.SPARED).any() for weight in weights)
