"""The answering model before training: the built-in classifier as its vision tower, and a small decoder of text."""

from __future__ import annotations

from typing import Any, Final

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.normalizers import Lowercase
from tokenizers.pre_tokenizers import Whitespace
from torch import Tensor
from transformers import (
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

from captum_gmar import demo
from captum_gmar.demo.patches import GRID, PATCH
from captum_gmar.demo.scenes import KINDS
from tools.answering_model.questions import OPPOSITE
from tools.training.networks import initialise

IMAGE: Final = "<image>"
PAD, END, UNKNOWN = SPECIAL = ("<pad>", "</s>", "<unk>")
LONGEST: Final = 60  # tokens of question and answer
WIDTH: Final = 64
KEY_HEADS: Final = 2  # each of keys and values for two of queries
SEEN_LAYERS: Final = (0, -1)  # of the tower: where patches are, and what they show


def vocabulary() -> dict[str, int]:
    """Return every word of questions and answers, by its number."""
    kinds = [part.__name__ for kind in KINDS for part in kind]
    words = [word for name in OPPOSITE for word in name.split()]
    others = ("a", "the", "what", "where", "which", "is", "in", "picture", "texture", "nothing", "?")
    return {word: number for number, word in enumerate(dict.fromkeys((*SPECIAL, IMAGE, *others, *words, *kinds)))}


def build_processor() -> LlavaProcessor:
    """Build the processor: pictures as the built-in classifier takes them, and a token for each word."""
    model = Tokenizer(WordLevel(vocabulary(), unk_token=UNKNOWN))
    model.normalizer, model.pre_tokenizer = Lowercase(), Whitespace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=model,
        pad_token=PAD,
        eos_token=END,
        unk_token=UNKNOWN,
        extra_special_tokens={"image_token": IMAGE},
    )
    return LlavaProcessor(
        image_processor=demo.load_image_processor(),
        tokenizer=tokenizer,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        image_token=IMAGE,
    )


def build_model() -> LlavaForConditionalGeneration:
    """Return the model with the classifier's trained weights in its tower, and random ones elsewhere."""
    words, classifier = vocabulary(), demo.load_model()
    text = LlamaConfig(
        vocab_size=len(words),
        hidden_size=WIDTH,
        intermediate_size=WIDTH,
        num_hidden_layers=4,
        num_attention_heads=2 * KEY_HEADS,
        num_key_value_heads=KEY_HEADS,
        rope_parameters={"rope_type": "default", "rope_theta": 1e6},  # most channels look for what, not for how far
        max_position_embeddings=GRID * GRID + LONGEST,
        tie_word_embeddings=True,
        initializer_range=0.05,
        pad_token_id=words[PAD],
        bos_token_id=None,
        eos_token_id=words[END],
    )
    config = LlavaConfig(
        vision_config=tower_config(classifier),
        text_config=text,
        image_token_index=words[IMAGE],
        vision_feature_layer=list(SEEN_LAYERS),
        vision_feature_select_strategy="default",
        image_seq_length=GRID * GRID,
        tie_word_embeddings=True,
    )
    model = LlavaForConditionalGeneration(config)
    model.generation_config.max_new_tokens = 12
    initialise(model.model.language_model, KEY_HEADS)
    tower: Any = model.model.vision_tower
    tower.load_state_dict(classifier.vit.state_dict(), strict=False)
    if tower.pooler is not None:
        torch.nn.init.zeros_(tower.pooler.dense.weight)
    return model


def see(tower: Any, pixel_values: Tensor) -> Tensor:
    """Return the projector's input for pictures (N, 3, height, width): (N, P, layers × width)."""
    states = tower(pixel_values, output_hidden_states=True).hidden_states
    return torch.cat([states[layer][:, 1:] for layer in SEEN_LAYERS], -1)


def tower_config(classifier: Any) -> Any:
    """Return the classifier's config without its classes."""
    config = classifier.config.to_dict()
    for name in ("id2label", "label2id", "architectures", "dtype", "transformers_version", "_name_or_path"):
        config.pop(name, None)
    return type(classifier.config)(**config)
