"""The command on a folder of a real timm model, as transformers saves it. Needs timm, and so torchvision."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("timm", reason="timm is not installed; it needs torchvision")
from transformers import TimmWrapperConfig, TimmWrapperForImageClassification

from captum_gmar import GMARAttribution, TokenEvidence
from captum_gmar.classifier import load_classifier
from captum_gmar.cli import main as cli
from cli.commandline import save_photo

MEAN, STD = [0.5, 0.4, 0.3], [0.2, 0.3, 0.4]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    torch.manual_seed(0)
    small = {"img_size": 32, "patch_size": 8, "depth": 2, "embed_dim": 24, "num_heads": 3}
    config = TimmWrapperConfig(architecture="vit_tiny_patch16_224", model_args=small, num_labels=3)
    model = TimmWrapperForImageClassification(config)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    path = tmp_path_factory.mktemp("timm")
    model.save_pretrained(path)
    settings = json.loads((path / "config.json").read_text())
    pretrained = {"input_size": [3, 32, 32], "mean": MEAN, "std": STD, "crop_pct": 0.8, "interpolation": "bicubic"}
    (path / "config.json").write_text(json.dumps({**settings, "pretrained_cfg": pretrained}))
    return path


@pytest.fixture(scope="module")
def classifier(folder):
    return load_classifier(folder)


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """The folder of two photos and a mask, in the current folder."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "photos"
    folder.mkdir()
    for seed in range(2):
        save_photo(folder / f"{seed}.png", seed)
    left_half().save(tmp_path / "mask.png")
    rows = [{"path": f"photos/{seed}.png", "label": seed, "mask": "mask.png"} for seed in range(2)]
    (tmp_path / "photos.json").write_text(json.dumps(rows))
    return folder


def left_half():
    """White there, of the photos' size."""
    return Image.fromarray(np.where(np.arange(60) < 30, 255, 0).astype(np.uint8)[None].repeat(40, 0))


def test_the_photo_is_what_the_model_saw(classifier, photos):
    image = Image.open(photos / "0.png")
    *unnormalised, _ = classifier.processor.val_transforms.transforms
    expected = image
    for transform in unnormalised:
        expected = transform(expected)
    found = classifier.photo(classifier.pixel_values(image)[0])
    np.testing.assert_allclose(found, torch.as_tensor(expected).movedim(0, -1).numpy(), atol=1e-5)


def test_the_mask_lies_where_the_object_is(classifier):
    found = classifier.mask(left_half())
    assert found.dtype == torch.bool
    assert found.shape == (32, 32)
    assert found[:, :16].all()
    assert not found[:, 16:].any()


@pytest.mark.parametrize(
    "arguments",
    [
        ("explain", "photos", "--methods", "gmar-l1,attention-evidence", "--save-array", "maps.npz"),
        ("compare", "photos/0.png", "--methods", "gmar-l1,libra-attcat", "--steps", "2"),
        (
            "evaluate",
            *["photos.json", "--methods", "gmar-l1", "--metrics", "deletion,relevance-mass", "--removal", "tokens"],
        ),
        ("heads", "photos"),
    ],
)
def test_every_command(folder, photos, arguments, capsys):
    output = ["--output", "out"] if arguments[0] == "evaluate" else []
    assert cli.main([*arguments, "--model", str(folder), *output]) == 0, capsys.readouterr().err


def test_the_command_s_maps_are_the_library_s(folder, classifier, photos):
    assert cli.main(["explain", "photos/1.png", "--model", str(folder), "--save-array", "maps.npz"]) == 0
    pixels = classifier.pixel_values(Image.open(photos / "1.png"))
    target = int(classifier.logits(pixels).argmax())
    methods = TokenEvidence(classifier.model), GMARAttribution(classifier.model)
    with np.load("maps.npz") as arrays:
        assert arrays["method"].tolist() == ["token-evidence", "gmar-l1"]
        for found, method in zip(arrays["relevance"], methods, strict=True):
            np.testing.assert_allclose(found, method.relevance(pixels, target).numpy(), rtol=1e-4, atol=1e-6)
