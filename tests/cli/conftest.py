"""Small random models in folders, a folder to work in, and the command."""

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor
from transformers import (
    BertConfig,
    BertModel,
    CLIPConfig,
    CLIPForImageClassification,
    CLIPImageProcessor,
    Dinov2Config,
    Dinov2ForImageClassification,
    ResNetConfig,
    ResNetForImageClassification,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessor,
    ViTModel,
)

from captum_gmar.classifier import Classifier, load_classifier
from captum_gmar.cli import main as cli
from cli.commandline import LABELS, Result, Run, save_photo

SMALL = {
    "image_size": 32,
    "patch_size": 8,
    "hidden_size": 16,
    "num_attention_heads": 2,
    "num_hidden_layers": 2,
    "intermediate_size": 32,
    "initializer_range": 0.3,
}


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of folders with small random models."""
    folder = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    labels = {"id2label": LABELS, "label2id": {name: index for index, name in LABELS.items()}}
    text = {"hidden_size": 16, "num_attention_heads": 2, "num_hidden_layers": 1, "intermediate_size": 16}
    dino = {**SMALL, "image_size": 64, "mlp_ratio": 2, "num_labels": 3}
    no_number = ViTForImageClassification(ViTConfig(**SMALL, num_labels=3))
    no_number.classifier.weight.data.fill_(torch.nan)
    resnet = ResNetConfig(embedding_size=8, hidden_sizes=[8, 8], depths=[1, 1], layer_type="basic", num_labels=3)
    classifiers = {
        "vit": ViTForImageClassification(ViTConfig(**SMALL, **labels)),
        "one": ViTForImageClassification(ViTConfig(**SMALL, num_labels=1)),
        "multi": ViTForImageClassification(ViTConfig(**SMALL, num_labels=3, problem_type="multi_label_classification")),
        "nan": no_number,
        "dino": Dinov2ForImageClassification(
            Dinov2Config(**{k: v for k, v in dino.items() if k != "intermediate_size"})
        ),
        "resnet": ResNetForImageClassification(resnet),
        "headless": ViTModel(ViTConfig(**SMALL)),
    }
    for name, model in classifiers.items():
        model.save_pretrained(folder / name)
        ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder / name)
    clip = CLIPForImageClassification(CLIPConfig(vision_config=SMALL, text_config=text, num_labels=3))
    clip.save_pretrained(folder / "clip")
    crop = {"height": 32, "width": 32}
    CLIPImageProcessor(size={"shortest_edge": 40}, crop_size=crop).save_pretrained(folder / "clip")
    BertModel(BertConfig(**text, vocab_size=20)).save_pretrained(folder / "bert")
    return folder


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: ``photo.png`` and an empty folder ``out``."""
    monkeypatch.chdir(tmp_path)
    save_photo(tmp_path / "photo.png")
    (tmp_path / "out").mkdir()
    return tmp_path


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs the command in this process."""

    def run(*arguments: object) -> Result:
        capsys.readouterr()  # what the test itself has printed
        try:
            status = cli.main(["explain", *map(str, arguments)])
        except SystemExit as end:
            status = int(end.code or 0)
        return Result(status, *capsys.readouterr())

    return run


@pytest.fixture(scope="session")
def classifier(models: Path) -> Classifier:
    """The model "vit" with its image processor."""
    return load_classifier(models / "vit")


@pytest.fixture(scope="session")
def loaded(classifier: Classifier) -> tuple[Any, Any]:
    """The model "vit" and its image processor."""
    return classifier.model, classifier.processor


@pytest.fixture
def pixels(work: Path, loaded: tuple[Any, Any]) -> Tensor:
    """Of ``photo.png``, as the model "vit" takes them."""
    return loaded[1](Image.open(work / "photo.png"), return_tensors="pt")["pixel_values"]
