"""Texts as the classes of models that score images against texts, such as CLIP and SigLIP."""

import copy
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

NEEDED = ("get_image_features", "get_text_features", "logit_scale")


class TextScores(nn.Module):
    """An image classifier whose classes are texts, scored by an image–text model.

    The constructor encodes the texts once; afterwards only images run forward. The logits are the model's own
    ``logits_per_image``: :math:`e^s \\langle u, t \\rangle + b` of the normalised embeddings u and t. Only SigLIP has
    b; its texts do not compete, which ``config.problem_type`` says.

    Args:
        model (torch.nn.Module): Of transformers, with ``get_image_features``, ``get_text_features`` and
            ``logit_scale``: CLIP, MetaCLIP 2, Chinese-CLIP, AltCLIP, SigLIP, SigLIP 2. It is used as it is.
        tokenizer (callable): The model's tokenizer, or its processor, which holds one.
        texts (sequence of str): The classes, in their order.
    """

    text_embeddings: Tensor

    def __init__(self, model: nn.Module, tokenizer: Any, texts: Sequence[str]) -> None:
        super().__init__()
        check_texts(texts)
        config: Any = getattr(model, "config", None)
        if config is None or any(not hasattr(model, name) for name in NEEDED):
            raise ValueError(
                f"model must score images against texts, with {', '.join(NEEDED)}, as transformers' CLIPModel, but got "
                f"{type(model).__name__}."
            )
        self.model = two_towers = cast(Any, model)
        self.config = copy.copy(config)
        self.config.id2label = dict(enumerate(texts))
        self.config.problem_type = "multi_label_classification" if _is_sigmoid(model) else None
        with torch.no_grad():
            embeddings = _embedding(two_towers.get_text_features(**_tokens(model, tokenizer, texts)))
        self.register_buffer("text_embeddings", _unit_length(embeddings).detach(), persistent=False)
        self.training = model.training  # its parts stay as they are

    def forward(self, pixel_values: Tensor, **options: Any) -> Tensor:
        """Return logits (N, texts) for pixel values (N, channels, height, width)."""
        embeddings = _unit_length(_embedding(self.model.get_image_features(pixel_values=pixel_values, **options)))
        logits: Tensor = embeddings @ self.text_embeddings.to(embeddings).mT * self.model.logit_scale.exp()
        return logits + self.model.logit_bias if _is_sigmoid(self.model) else logits


class PackedTextScores(TextScores):
    """The same for a model that takes images as patches, such as SigLIP 2 with its NaFlex processor."""

    def forward(  # type: ignore[override]
        self, pixel_values: Tensor, pixel_attention_mask: Tensor, spatial_shapes: Tensor
    ) -> Tensor:
        """Return logits (N, texts) for patches (N, patches, numbers), their mask, and rows and columns (N, 2)."""
        return super().forward(pixel_values, pixel_attention_mask=pixel_attention_mask, spatial_shapes=spatial_shapes)


def check_texts(texts: Sequence[str]) -> None:
    """Check that there are texts, which are strings, none of them empty or given twice."""
    if isinstance(texts, str) or not all(isinstance(text, str) for text in texts):
        raise TypeError(f"texts must be a sequence of strings, but got {texts!r}.")
    if not texts or not all(text.strip() for text in texts) or len(set(texts)) < len(texts):
        raise ValueError(f"texts must be at least one, none empty, each given once, but got {list(texts)}.")


def _is_sigmoid(model: nn.Module) -> bool:
    """Return whether each text's score is independent, trained with a sigmoid."""
    return getattr(model, "logit_bias", None) is not None


def _tokens(model: Any, tokenizer: Any, texts: Sequence[str]) -> dict[str, Tensor]:
    tokenizer = getattr(tokenizer, "tokenizer", tokenizer)
    if not callable(tokenizer):
        raise TypeError(f"processor must hold the model's tokenizer, but got {type(tokenizer).__name__}.")
    longest = getattr(getattr(model.config, "text_config", None), "max_position_embeddings", None)
    for text in texts:
        length = len(tokenizer([text])["input_ids"][0])
        if longest is not None and length > longest:
            raise ValueError(f"text must be of at most the model's {longest} tokens, but got {length} of {text!r}.")
    # SigLIP was trained on texts padded to full length, and reads the last token.
    padding = {"padding": "max_length", "max_length": longest} if _is_sigmoid(model) else {"padding": True}
    tokens = tokenizer(list(texts), return_tensors="pt", **padding)
    device = next(model.parameters()).device
    return {name: tokens[name].to(device) for name in ("input_ids", "attention_mask") if name in tokens}


def _embedding(features: Any) -> Tensor:
    """Return the tensor, which transformers 5 wraps in an output."""
    embedding: Tensor = features if isinstance(features, Tensor) else features.pooler_output
    return embedding


def _unit_length(embedding: Tensor) -> Tensor:
    lengths: Tensor = embedding.norm(dim=-1, keepdim=True)
    return embedding / lengths
