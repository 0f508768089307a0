"""What bad input is tried on: small random models, damaged copies of them, pictures and tables, all in one folder."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import (
    BertConfig,
    BertModel,
    PvtConfig,
    PvtForImageClassification,
    ResNetConfig,
    ResNetForImageClassification,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessor,
    ViTModel,
)

LABELS = {0: "tabby, tabby cat", 1: "crane", 2: "crane", 3: "tiger cat"}
SHAPE = {
    "image_size": 32,
    "patch_size": 8,
    "hidden_size": 16,
    "num_attention_heads": 2,
    "num_hidden_layers": 2,
    "intermediate_size": 32,
    "initializer_range": 0.3,
}
PVT = {  # whose layers have fewer keys than queries, and so no square attention
    "image_size": 32,
    "num_encoder_blocks": 2,
    "depths": [1, 1],
    "sequence_reduction_ratios": [2, 1],
    "hidden_sizes": [8, 16],
    "patch_sizes": [4, 2],
    "strides": [4, 2],
    "num_attention_heads": [1, 2],
    "mlp_ratios": [2, 2],
}


def small_vit(**changes: Any) -> ViTForImageClassification:
    """A random classifier of four classes and 4x4 patches; equal calls give equal weights."""
    torch.manual_seed(0)
    labels = {"id2label": LABELS, "label2id": {name: index for index, name in LABELS.items()}}
    return ViTForImageClassification(ViTConfig(**{**SHAPE, **labels, **changes})).eval()


def make_models(folder: Path) -> None:
    """Write a whole model, damaged copies of it, and models that are no classifiers or cannot be explained."""
    with redirect_stderr(StringIO()):  # progress bars
        for name, model in _models().items():
            model.save_pretrained(folder / name)
            ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder / name)
    for path in folder.glob("*/*"):
        path.chmod(0o644)  # for rows that somebody else runs
    for name, damage in DAMAGES.items():
        shutil.copytree(folder / "vit", folder / name)
        damage(folder / name)


def _models() -> dict[str, Any]:
    text = {"hidden_size": 16, "num_attention_heads": 2, "num_hidden_layers": 1, "intermediate_size": 16}
    no_number = small_vit()
    no_number.classifier.weight.data.fill_(torch.nan)
    resnet = ResNetConfig(embedding_size=8, hidden_sizes=[8, 8], depths=[1, 1], layer_type="basic", num_labels=3)
    return {
        "vit": small_vit(),
        "nan": no_number,
        "headless": ViTModel(ViTConfig(**SHAPE)),
        "bert": BertModel(BertConfig(**text, vocab_size=20)),
        "resnet": ResNetForImageClassification(resnet),
        "pvt": PvtForImageClassification(PvtConfig(**PVT)),
    }


def _config(**changes: object) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    return damage


def _replaced(name: str, content: str | bytes) -> Callable[[Path], None]:
    data = content.encode() if isinstance(content, str) else content
    return lambda folder: (folder / name).write_bytes(data) and None


def _removed(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def _weights(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        weights = load_file(folder / "model.safetensors")
        change(weights)
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})

    return damage


def _halved(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


DAMAGES: dict[str, Callable[[Path], None]] = {
    "without a config": _removed("config.json"),
    "config of text": _replaced("config.json", "text"),
    "config cut off": _replaced("config.json", "{"),
    "config empty": _replaced("config.json", ""),
    "config without a type": _replaced("config.json", "{}"),
    "config a list": _replaced("config.json", "[]"),
    "config a number": _replaced("config.json", "1"),
    "config no UTF-8": _replaced("config.json", b'{"model_type": "\xff"}'),
    "config of an unknown type": _config(model_type="nothing"),
    "patch size 0": _config(patch_size=0),
    "patch size -8": _config(patch_size=-8),
    "patch size of text": _config(patch_size="eight"),
    "patches larger than the image": _config(patch_size=64),
    "heads that do not divide": _config(num_attention_heads=3),
    "fewer layers than weights": _config(num_hidden_layers=1),
    "more layers than weights": _config(num_hidden_layers=3),
    "more classes than weights": _config(id2label={str(index): f"class {index}" for index in range(6)}),
    "another width than weights": _config(hidden_size=32),
    "without weights": _removed("model.safetensors"),
    "weights of text": _replaced("model.safetensors", "text"),
    "weights empty": _replaced("model.safetensors", b""),
    "weights cut off": _halved,
    "weights with one missing": _weights(lambda weights: weights.pop("classifier.bias")),
    "weights with one too many": _weights(lambda weights: weights.update(adapter=torch.zeros(2))),
    "without a processor": _removed("preprocessor_config.json"),
    "processor of text": _replaced("preprocessor_config.json", "text"),
    "processor a list": _replaced("preprocessor_config.json", "[]"),
    "processor empty": _replaced("preprocessor_config.json", ""),
    "processor of an unknown type": _replaced("preprocessor_config.json", '{"image_processor_type": "Nothing"}'),
}


def photo(seed: int = 0, size: tuple[int, int] = (60, 40)) -> Image.Image:
    """A picture of noise, width and height as given."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def make_place(folder: Path) -> None:
    """Write what good input is made of: a photo, a folder of photos, one with classes, a table and an empty folder."""
    (folder / "out").mkdir(parents=True)
    photo().save(folder / "photo.png")
    for place, count in {"photos": 2, "classes/0": 2, "classes/3": 2}.items():
        (folder / place).mkdir(parents=True)
        for seed in range(count):
            photo(seed + len(place)).save(folder / place / f"{seed}.png")
    rows = [f"photos/{seed}.png,{seed}" for seed in range(2)]
    (folder / "photos.csv").write_text("\n".join(["path,label", *rows]) + "\n")


@contextmanager
def unprivileged() -> Iterator[None]:
    """Within the block the superuser, to whom everything is writable, is somebody else."""
    import os

    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)
