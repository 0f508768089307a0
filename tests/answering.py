"""A tiny model that answers, of random weights, with a processor of its own: one token for each letter or sign."""

import torch
import transformers as tf
from PIL import Image
from text_models import IMAGE_TOKEN, llava
from tokenizers import Regex, Tokenizer
from tokenizers.decoders import Fuse
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Split


def letter_tokenizer(vocabulary, **options):
    """Return a tokenizer with one token for each sign of a vocabulary that has `<unk>`."""
    model = Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))
    model.pre_tokenizer, model.decoder = Split(Regex(r"[\s\S]"), "isolated"), Fuse()
    return tf.PreTrainedTokenizerFast(tokenizer_object=model, unk_token="<unk>", **options)


def build_tokenizer():
    letters = {"?": 3} | {letter: 10 + number for number, letter in enumerate(" abcdefghijklmnopqrstuvwxyz.:")}
    vocabulary = {"<pad>": 0, "<unk>": 4, "<image>": IMAGE_TOKEN, **letters}
    return letter_tokenizer(vocabulary, pad_token="<pad>", extra_special_tokens={"image_token": "<image>"})


def build_processor(**changed):
    parts = {
        "image_processor": tf.ViTImageProcessor(size={"height": 32, "width": 32}),
        "tokenizer": build_tokenizer(),
        "patch_size": 8,
        "vision_feature_select_strategy": "default",
        "num_additional_image_tokens": 1,
    }
    return tf.LlavaProcessor(**parts | changed)


def save_answering_model(folder):
    """Writes the model with its processor."""
    torch.manual_seed(0)
    llava()[0].eval().save_pretrained(folder)
    build_processor().save_pretrained(folder)


def photo(width=48, height=32):
    pixels = torch.randint(256, (height, width, 3), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    return Image.fromarray(pixels.numpy())
