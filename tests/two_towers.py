"""Small random models that score images against texts, and what stands for their tokenizer."""

import torch
import transformers
from classifiers import SMALL

TEXTS = ["a cat", "dog"]
TEXT = {
    **{"hidden_size": 16, "num_attention_heads": 2, "num_hidden_layers": 2, "intermediate_size": 16},
    "vocab_size": 30,
}
LONGEST = 8


def spell(texts, padding=False, max_length=0, **kwargs):
    """As a tokenizer: a token for each letter, and one that ends the text."""
    ids = [[1 + ord(letter) % 27 for letter in text] + [29] for text in texts]
    if not padding:
        return {"input_ids": ids}
    width = max_length or max(map(len, ids))
    return {
        "input_ids": torch.tensor([row + [0] * (width - len(row)) for row in ids]),
        "attention_mask": torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in ids]),
    }


def two_towers(name, **vision):
    """The model of transformers of this name, small and random."""
    torch.manual_seed(0)
    text = {**TEXT, "max_position_embeddings": LONGEST, "eos_token_id": 29, "bos_token_id": 28, "pad_token_id": 0}
    image = {**{key: value for key, value in SMALL.items() if key != "initializer_range"}, **vision}
    config = getattr(transformers, f"{name}Config")(text_config=text, vision_config=image)
    return getattr(transformers, f"{name}Model")(config).eval()


def packed_images():
    """Two images of 2x3 patches, with one that is padded."""
    patches = torch.randn(2, 7, 3 * 64, generator=torch.Generator().manual_seed(2))
    return patches, torch.tensor([[1] * 6 + [0]] * 2), torch.tensor([[2, 3]] * 2)
