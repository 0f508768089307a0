"""Attention evidence for what LayoutLMv3 says of a page: labels of its words, its class, or the ends of an answer."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from captum_gmar.engine.models.patch_grid import check_model
from captum_gmar.vlm.attribution import AnswerAttribution, normalize_evidence
from captum_gmar.vlm.decoder_pass import explain_rows
from captum_gmar.vlm.evidence import check_example, check_version
from captum_gmar.vlm.image_tokens import PicturePrompt
from captum_gmar.vlm.layouts import picture_tokens
from captum_gmar.vlm.word_scores import word_scores
from captum_gmar.vlm.words import token_texts


class DocumentEvidence:
    r"""Attention evidence in a page's words and patches for LayoutLMv3.

    It is that of :class:`~captum_gmar.AnswerEvidence`, where :math:`o_{l,w}` are the log-odds of token w's label or of
    the page's class, or the logit of an answer's first or last token, if the model's head follows layer l directly.

    Args:
        model: LayoutLMv3 for token classification, sequence classification or question answering. It does not change.
        processor: The model's processor or tokenizer, for texts of tokens.
    """

    def __init__(self, model: nn.Module, processor: Any = None) -> None:
        check_model(model)
        check_version()
        self.model: Any = model
        self.tower: Any = getattr(model, "layoutlmv3", None)
        self.is_of_answers = hasattr(model, "qa_outputs")
        self.head: Any = getattr(model, "qa_outputs", getattr(model, "classifier", None))
        if self.tower is None or self.head is None:
            raise ValueError(f"model must be a LayoutLMv3 with a head, but got {type(model).__name__}.")
        self.tokenizer = getattr(processor, "tokenizer", processor)

    def attribute(self, inputs: Mapping[str, Any], target: Sequence[int] | None = None) -> AnswerAttribution:
        """Explain the label of every token, the class of the page, or the first and last token of the answer.

        ``picture_relevance()`` of the result has words and patches in one map.

        Args:
            inputs: The processor's output for one page.
            target: A label of every token, a class, or the places of the first and last token. Default: None, the
                model's own.
        """
        arguments = check_example(self.tower, inputs)
        ids = arguments["input_ids"][0]
        with torch.no_grad():
            output = self.model(**arguments)
        if self.is_of_answers:  # (2, tokens), without the picture's
            logits = torch.cat([output.start_logits, output.end_logits])[:, : len(ids)]
        else:
            logits = output.logits.flatten(0, -2)
        chosen = logits.argmax(1) if target is None else torch.as_tensor(target, device=logits.device).flatten()
        if len(chosen) != len(logits) or not ((chosen >= 0) & (chosen < logits.shape[1])).all():
            raise ValueError(f"target must be {len(logits)} numbers below {logits.shape[1]}, but got {target!r}.")

        def score(hidden: Tensor) -> Tensor:
            found: Tensor = self.head(hidden)
            return found.diagonal(dim1=-2, dim2=-1) if self.is_of_answers else word_scores(found, chosen.tolist(), None)

        rows = chosen if self.is_of_answers else torch.arange(len(logits), device=logits.device)
        given = self.tower, self.tower.encoder.layer, lambda: self.tower(**arguments).last_hidden_state
        evidence = explain_rows(*given, rows, score)
        relevance, _, scores, totals = normalize_evidence(evidence)
        length, texts = relevance.shape[1], tuple(token_texts(self.tokenizer, ids[rows].tolist()))
        pictures = tuple(picture_tokens(PicturePrompt(self.model, arguments, length)) or ())
        return AnswerAttribution(texts, relevance, None, scores, totals, length, pictures, attended=evidence.attended)
