"""Small random image classifiers with their image processors, and models that are none, in folders."""

import json

import torch
from transformers import (
    BertConfig,
    BertModel,
    CLIPConfig,
    CLIPForImageClassification,
    CLIPImageProcessor,
    CLIPModel,
    Dinov2Config,
    Dinov2ForImageClassification,
    ResNetConfig,
    ResNetForImageClassification,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessor,
    ViTModel,
)

LABELS = {0: "tabby, tabby cat", 1: "crane", 2: "crane", 3: "tiger cat"}  # of the model "vit"
SMALL = {
    "image_size": 32,
    "patch_size": 8,
    "hidden_size": 16,
    "num_attention_heads": 2,
    "num_hidden_layers": 2,
    "intermediate_size": 32,
    "initializer_range": 0.3,
}


LETTERS = [chr(code) for code in range(ord("a"), ord("z") + 1)]
WORDS = [*LETTERS, *(f"{letter}</w>" for letter in LETTERS), "<|startoftext|>", "<|endoftext|>"]  # as CLIP's tokenizer
LONGEST_TEXT = 16  # letters, and its two ends


def save_clip_of_texts(folder):
    """Writes a CLIP with its processor, whose tokenizer spells."""
    ends = {"bos_token_id": len(WORDS) - 2, "eos_token_id": len(WORDS) - 1, "pad_token_id": len(WORDS) - 1}
    text = {
        **{"hidden_size": 16, "num_attention_heads": 2, "num_hidden_layers": 1, "intermediate_size": 16},
        **{"vocab_size": len(WORDS), "max_position_embeddings": LONGEST_TEXT, **ends},
    }
    CLIPModel(CLIPConfig(vision_config=SMALL, text_config=text)).save_pretrained(folder)
    CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}).save_pretrained(folder)
    (folder / "vocab.json").write_text(json.dumps({word: index for index, word in enumerate(WORDS)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "CLIPTokenizer"}))


def save_models(folder):
    """Writes them to folders in the folder."""
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
    save_clip_of_texts(folder / "clip-of-texts")
    BertModel(BertConfig(**text, vocab_size=20)).save_pretrained(folder / "bert")
