"""Maps during training: the training is bit by bit the same without them, and the maps are those of the model then."""

import copy
import random
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from transformers import Trainer, TrainingArguments, ViTConfig, ViTForImageClassification

from captum_gmar import GradientRollout, TokenEvidence
from captum_gmar.files.writing import read_note
from captum_gmar.inspection.training import TrainingMaps

IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
STEPS = ["step-00000000.png", "step-00000002.png", "step-00000004.png"]


def make_model():
    """A model with dropout, whose training draws random numbers."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 48}
    dropout = {"hidden_dropout_prob": 0.3, "attention_probs_dropout_prob": 0.3}
    return ViTForImageClassification(ViTConfig(**sizes, **dropout, image_size=32, patch_size=8, num_labels=4))


class Images(torch.utils.data.Dataset):
    def __len__(self):
        return 8

    def __getitem__(self, index):
        drawn = torch.randn(3, 32, 32, generator=torch.Generator().manual_seed(index))
        return {"pixel_values": drawn, "labels": index % 4}


class Writer:
    """TensorBoard's writer, as far as it is called; it keeps tags and steps."""

    def __init__(self):
        self.calls = []

    def add_figure(self, tag, figure, global_step):
        self.calls.append((tag, len(figure.axes) > 0, global_step))


def states():
    return torch.get_rng_state(), random.getstate(), str(np.random.get_state())


def assert_same_weights(one, other):
    for (name, value), expected in zip(one.state_dict().items(), other.state_dict().values(), strict=True):
        assert torch.equal(value, expected), name


def train_by_trainer(folder, callbacks):
    pytest.importorskip("accelerate")
    model = make_model()
    options = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2, "max_steps": 4, "use_cpu": True}
    quiet = {"report_to": "none", "save_strategy": "no", "disable_tqdm": True, "logging_strategy": "no"}
    arguments = TrainingArguments(str(folder / "trainer"), **options, **quiet, learning_rate=0.01, seed=3)
    Trainer(model, arguments, train_dataset=Images(), callbacks=callbacks).train()
    return model


@pytest.mark.filterwarnings("ignore:'pin_memory' argument is set as true")
def test_trainer_goes_on_as_without_maps(tmp_path):
    writer = Writer()
    maps = TrainingMaps(IMAGES, 1, every=2, folder=tmp_path / "maps", writer=writer)
    watched = train_by_trainer(tmp_path, [maps.trainer_callback()])
    alone = train_by_trainer(tmp_path, [])
    assert_same_weights(watched, alone)
    assert not torch.equal(watched.classifier.weight, make_model().classifier.weight)
    assert sorted(path.name for path in (tmp_path / "maps").iterdir()) == STEPS
    assert writer.calls == [("relevance", True, step) for step in (0, 2, 4)]


def train_by_lightning(folder, callbacks):
    import lightning

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.network = make_model()
            self.modes = []

        def forward(self, pixels):
            return self.network(pixels).logits

        def training_step(self, batch, batch_index):
            self.modes.append((self.training, self.network.training))
            return nn.functional.cross_entropy(self(batch["pixel_values"]), batch["labels"])

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 0.1)

    lightning.seed_everything(3, verbose=False)
    module = Module()
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = lightning.Trainer(
        max_steps=4,
        accumulate_grad_batches=2,
        accelerator="cpu",
        callbacks=callbacks,
        enable_model_summary=False,
        **quiet,
    )
    trainer.fit(module, torch.utils.data.DataLoader(Images(), 2, shuffle=True))
    assert set(module.modes) == {(True, True)}
    return module


@pytest.mark.filterwarnings("ignore")  # Lightning's advice
def test_lightning_goes_on_as_without_maps(tmp_path):
    pytest.importorskip("lightning")
    maps = TrainingMaps(IMAGES, 1, every=2, folder=tmp_path)
    watched = train_by_lightning(tmp_path, [maps.lightning_callback()])
    assert_same_weights(watched, train_by_lightning(tmp_path, []))
    assert sorted(path.name for path in tmp_path.iterdir()) == STEPS


def test_nothing_of_the_model_is_touched(tmp_path):
    model = make_model().train()
    model.vit.embeddings.eval()  # as users freeze a part
    model(IMAGES, labels=torch.tensor([0, 1])).loss.backward()
    modes = [module.training for module in model.modules()]
    gradients = [weight.grad.clone() for weight in model.parameters() if weight.grad is not None]
    before, random_states = copy.deepcopy(model), states()
    TrainingMaps(IMAGES, 1, every=1, folder=tmp_path).draw(model, 7)
    assert states()[1:] == random_states[1:]
    assert torch.equal(states()[0], random_states[0])
    assert_same_weights(model, before)
    assert [module.training for module in model.modules()] == modes
    left = [weight.grad for weight in model.parameters() if weight.grad is not None]
    assert len(left) == len(gradients) > 10
    assert all(map(torch.equal, left, gradients))


def test_random_numbers_that_a_model_draws_when_it_is_evaluated(tmp_path):
    class Drawing(nn.Module):
        def __init__(self):
            super().__init__()
            self.network = make_model()

        def forward(self, pixels):
            torch.rand(3)
            return self.network(pixels).logits

    model = Drawing()
    before = torch.get_rng_state()
    TrainingMaps(IMAGES, 1, every=1, folder=tmp_path).draw(model, 0)
    assert torch.equal(torch.get_rng_state(), before)
    assert model.training


@pytest.mark.parametrize("method", [TokenEvidence, lambda model: GradientRollout(model, start_layer=1)])
def test_the_picture_is_of_the_maps(tmp_path, monkeypatch, method):
    drawn = {}
    monkeypatch.setattr(
        "captum_gmar.inspection.training.visualize_comparison",
        lambda maps, photos, **options: drawn.update(maps=maps, photos=photos) or (None, None),
    )
    monkeypatch.setattr("captum_gmar.inspection.training.save_picture", lambda figure, path: drawn.update(path=path))
    model = make_model().train()
    TrainingMaps(IMAGES, [1, 2], every=5, folder=str(tmp_path), method=method).draw(model, 5)
    (relevance,) = drawn["maps"].values()
    torch.testing.assert_close(relevance, method(model.eval()).relevance(IMAGES, [1, 2]))
    assert (drawn["photos"].amin((1, 2, 3)).tolist(), drawn["photos"].amax((1, 2, 3)).tolist()) == ([0, 0], [1, 1])
    assert drawn["path"] == tmp_path / STEPS[0].replace("0.png", "5.png")


def test_pictures_are_ours(tmp_path):
    TrainingMaps(IMAGES, 1, every=1, folder=tmp_path).draw(make_model(), 0)
    with Image.open(tmp_path / STEPS[0]) as picture:
        assert min(picture.size) > 400
    assert read_note(tmp_path / STEPS[0]) is not None


def test_bfloat16(tmp_path):
    TrainingMaps(IMAGES, 1, every=1, folder=tmp_path).draw(make_model().to(torch.bfloat16), 3)
    assert len([*tmp_path.iterdir()]) == 1


@pytest.mark.parametrize(
    ("inputs", "options", "message"),
    [
        (IMAGES, {"every": 0, "folder": "maps"}, r"every must be an integer, one or more, but got 0"),
        (IMAGES, {"every": 5}, r"folder must be given, but neither it nor a writer is"),
        (IMAGES[0], {"every": 5, "folder": "maps"}, r"inputs must be"),
    ],
)
def test_bad_arguments(inputs, options, message):
    with pytest.raises(ValueError, match=message):
        TrainingMaps(inputs, 1, **options)


def test_a_model_without_attention_leaves_the_modes(tmp_path):
    model = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(3072, 4)).train()
    with pytest.raises((RuntimeError, ValueError), match=r"attention|patch"):
        TrainingMaps(IMAGES, 1, every=1, folder=tmp_path).draw(model, 0)
    assert all(module.training for module in model.modules())


def test_lightning_that_is_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "lightning", None)
    with pytest.raises(ImportError, match=r"needs Lightning, but it is not installed. Run pip install lightning"):
        TrainingMaps(IMAGES, 1, every=1, folder="maps").lightning_callback()
