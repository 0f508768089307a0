"""A classifier is loaded whole or refused in one line that says what is wrong with which file."""

import json
import shutil
import time

import pytest
import torch
import transformers
from huggingface_hub import constants
from installed import HAS_TRANSFORMERS_5
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageClassification

from captum_gmar.classifier import choose_device, load_classifier, loading

UNEVEN_HEADS = "its weights do not fit its config.json, vit." if HAS_TRANSFORMERS_5 else "its model fails, "


@pytest.fixture
def changed(models, tmp_path):
    """A copy of the model "vit" with other values in one of its JSON files, or with that text as the file."""

    def change(file, text=None, **values):
        folder = tmp_path / "model"
        shutil.copytree(models / "vit", folder)
        if text is None:
            text = json.dumps({**json.loads((folder / file).read_text()), **values})
        (folder / file).write_bytes(text.encode(errors="surrogateescape"))
        return folder

    return change


def test_a_classifier_gives_what_transformers_gives(models):
    classifier = load_classifier(models / "vit")
    image = Image.effect_noise((60, 40), 80).convert("RGB")
    pixels = classifier.pixel_values(image)
    assert torch.equal(pixels, classifier.processor(image, return_tensors="pt")["pixel_values"])
    expected = AutoModelForImageClassification.from_pretrained(models / "vit").eval()(pixels).logits
    torch.testing.assert_close(classifier.logits(pixels), expected)
    assert classifier.device == torch.device("cpu")
    assert not classifier.model.training


def test_a_hub_that_does_not_answer_is_asked_once(monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # nobody answers there
    slept = []
    monkeypatch.setattr(time, "sleep", slept.append)
    with pytest.raises(
        OSError, match="no-such-model cannot be loaded: no such folder, and the Hugging Face hub cannot be reached"
    ):
        load_classifier("captum-gmar-tests/no-such-model", patience=5)
    assert slept == []


@pytest.mark.parametrize(
    ("file", "values", "message"),
    [
        ("config.json", {"patch_size": 0}, "its config.json must have a patch_size above zero, but got 0."),
        ("config.json", {"patch_size": "8"}, " cannot be loaded: "),  # noticed by transformers 4 as the model is made
        ("config.json", {"patch_size": -8}, "its config.json must have a patch_size above zero, but got -8."),
        ("config.json", {"patch_size": 64}, "its weights do not fit its config.json, vit.embeddings."),
        ("config.json", {"num_attention_heads": 3}, UNEVEN_HEADS),
        ("config.json", {"hidden_size": 32}, "its weights do not fit its config.json, "),
        ("config.json", {"num_hidden_layers": 0}, "must have a num_hidden_layers above zero, but got 0."),
        ("config.json", {"num_hidden_layers": 1}, "its config.json leaves out layers of its file, vit."),
        ("config.json", {"num_hidden_layers": 3}, "must be a trained image classifier, but its file lacks vit."),
        ("config.json", {"intermediate_size": 8}, "its weights do not fit its config.json, vit."),
        ("config.json", {"model_type": "nothing"}, "its config.json fails, "),
        ("config.json", {"model_type": "bert"}, "must be an image classifier, but is of type 'bert'"),
        ("preprocessor_config.json", {"text": "[1]"}, "its preprocessor_config.json must hold settings, "),
        ("config.json", {"text": "[1]"}, "its config.json fails, "),
        ("config.json", {"text": "{"}, "its config.json fails, "),
        *(("config.json", {"text": text}, "its config.json fails, ") for text in ("", "1", "{}", "\udcff")),
        *(("model.safetensors", {"text": text}, "its model fails, ") for text in ("", "text")),
        *(("preprocessor_config.json", {"text": text}, "its preprocessor_config.json fails") for text in ("", "text")),
        ("preprocessor_config.json", {"image_processor_type": "Nothing"}, "it has no image processor: "),
        ("preprocessor_config.json", {"text": "{}"}, "hold settings, such as the size of images, but got {}."),
    ],
)
def test_files_that_do_not_fit_are_named(changed, file, values, message):
    folder = changed(file, **values)
    with pytest.raises((OSError, ValueError)) as raised:
        load_classifier(folder)
    text = str(raised.value)
    assert text.startswith(f"{folder}")
    assert message in text
    assert "\n" not in text
    assert "above report" not in text


def test_weights_that_are_cut_off_or_missing(changed):
    path = changed("config.json") / "model.safetensors"
    weights = load_file(path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(OSError, match="its model fails, "):
        load_classifier(path.parent)
    path.unlink()
    with pytest.raises(OSError, match="cannot be loaded"):
        load_classifier(path.parent)
    save_file({name: weight for name, weight in weights.items() if name != "classifier.bias"}, path, {"format": "pt"})
    with pytest.raises(ValueError, match=r"must be a trained image classifier, but its file lacks classifier\.bias\. "):
        load_classifier(path.parent)
    (path.parent / "preprocessor_config.json").unlink()
    with pytest.raises(OSError, match="no image processor"):
        load_classifier(path.parent)


@pytest.mark.skipif(transformers.__version__ < "5", reason="transformers 4 does not tell the sizes")
def test_sizes_in_the_file_and_by_the_config_are_told(changed):
    labels = {str(index): f"label {index}" for index in range(7)}
    folder = changed("config.json", id2label=labels, label2id={name: int(index) for index, name in labels.items()})
    with pytest.raises(ValueError, match=r"classifier\.bias and 1 more, of shape \(4,\) in the file and \(7,\) by the"):
        load_classifier(folder)


def test_weights_beside_the_model_are_warned_of(changed):
    folder = changed("config.json")
    weights = load_file(folder / "model.safetensors")
    save_file({**weights, "vit.pooler.dense.bias": torch.zeros(16)}, folder / "model.safetensors", {"format": "pt"})
    with pytest.warns(UserWarning, match=r"model: weights of its file are not used: vit\.pooler\.dense\.bias$"):
        load_classifier(folder)


def test_the_hub_is_asked_only_for_what_is_not_here(monkeypatch, models):
    asked = []

    def read(name, local_files_only, is_text_model):
        asked.append(local_files_only)
        if local_files_only and name == "someone/elsewhere":
            raise OSError("not in the cache")
        return whole(str(models / "vit"), local_files_only=True, is_text_model=is_text_model)

    whole = loading._read
    monkeypatch.setattr(loading, "_read", read)
    load_classifier("someone/cached")
    assert asked == [True]
    load_classifier("someone/elsewhere")
    assert asked == [True, True, False]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("a b", "^a b cannot be loaded: no such folder"),
        ("a/b/c", "^a/b/c cannot be loaded: no such folder"),
        ("captum-gmar-tests/no-such-model", "no such folder, and the Hugging Face hub cannot be reached to look for"),
    ],
)
def test_a_name_of_nothing(monkeypatch, tmp_path, name, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(time, "sleep", lambda seconds: None)  # between the client's retries
    with pytest.raises(OSError, match=message):
        load_classifier(name)


def test_a_name_too_long_for_the_file_system():
    with pytest.raises(OSError, match="File name too long"):
        load_classifier("m" * 300)


@pytest.mark.parametrize(
    ("size", "message"),
    [
        (36, r"^size must be a multiple of the model's patch size, 8x8 pixels, but got 36\."),
        (4, r"^size must suit the model, but got 4: inputs must be at least a patch"),
        (
            8192,
            r"^size must be one .* within an hour",
        ),
        (16_000_000, r"^size must be at most 8192 pixels, but got 16000000\."),
    ],
)
def test_sizes_that_cannot_be(models, size, message):
    with pytest.raises(ValueError, match=message):
        load_classifier(models / "vit", size=size)


def test_devices(monkeypatch):
    assert choose_device("cpu") == torch.device("cpu")
    for name in ("cuda:99", "cuda:99999999999999999999", "tpu", "cpu:1", "cpu:x", 3):
        with pytest.raises(ValueError, match=rf"PyTorch finds here, of cpu \(1\).*, but got {name!r}\."):
            choose_device(name)
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    assert choose_device("auto") == torch.device("cpu")


@pytest.mark.parametrize("kind", ["cuda", "mps", "xpu"])
def test_any_accelerator(monkeypatch, kind):
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device(kind))
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 2)
    assert choose_device("auto") == choose_device(kind) == torch.device(kind)
    assert choose_device(f"{kind}:1") == torch.device(kind, 1)
    with pytest.raises(ValueError, match=rf"of cpu \(1\) or {kind} \(2\), but got '{kind}:2'\."):
        choose_device(f"{kind}:2")
