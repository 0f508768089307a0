"""Evidence for the words of a query in a page, for models that retrieve pages by late interaction."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from captum_gmar.engine.models.patch_grid import check_model
from captum_gmar.vlm.attribution import AnswerAttribution, normalize_evidence
from captum_gmar.vlm.decoder_pass import explain_rows
from captum_gmar.vlm.evidence import check_example, check_version
from captum_gmar.vlm.image_tokens import PicturePrompt, PictureTokens
from captum_gmar.vlm.layouts import picture_tokens
from captum_gmar.vlm.words import token_texts


@dataclass(frozen=True, kw_only=True)
class RetrievalAttribution(AnswerAttribution):
    """Evidence for each token of a query, as an answer's tokens have it, and its similarities with the page.

    Attributes:
        similarities: (W, S) products of the query's embeddings with the page's; a score is a row's maximum, or the sum
            of the maxima of a phrase's tokens.
    """

    similarities: Tensor

    def phrases(self, spans: Sequence[slice]) -> "RetrievalAttribution":
        """Sum evidence, similarities and scores of tokens to phrases, as :meth:`AnswerAttribution.phrases`."""
        result = super().phrases(spans)
        assert isinstance(result, RetrievalAttribution)
        return replace(result, similarities=torch.stack([self.similarities[span].sum(0) for span in spans]))

    def similarity(self, picture: int = 0) -> Tensor:
        """Return the similarities (W, rows, columns) of the page's image tokens, of joined tiles."""
        assert self.pictures is not None
        tokens = self.pictures[picture]
        assert isinstance(tokens, PictureTokens)
        return self.similarities[:, tokens.columns.to(self.similarities.device)]


class RetrievalEvidence:
    r"""Attention evidence for every token of a query in a page, for ColPali, ColQwen2 and ColModernVBert.

    The score of a page is a sum of maxima, :math:`\sum_w \max_j \langle q_w, d_j \rangle`. Token w of the query has its
    maximum at token i of the page, and its evidence is that of :class:`~captum_gmar.AnswerEvidence` with
    :math:`o_{l,w} = \langle q_w, d_{l,i} \rangle`, where the final norm and the projection to embeddings follow
    layer l directly. Similarities say where the page matches a word; evidence says which tokens the match has read.

    Limitations: those of :class:`~captum_gmar.AnswerEvidence`. The query's embeddings are constant.

    Args:
        model: Model of transformers that embeds pages and queries. It does not change.
        processor: The model's processor, for pictures and text. None: its outputs only.

    Raises:
        TypeError: if ``model`` is not a ``torch.nn.Module``.
        ValueError: if ``model`` does not embed pages.
        ImportError: if transformers is older than 5.
    """

    def __init__(self, model: nn.Module, processor: Any = None) -> None:
        check_model(model)
        check_version()
        tower: Any = getattr(model, "vlm", None)
        text = getattr(tower, "language_model", None) or getattr(tower, "text_model", None)
        if text is None or not hasattr(model, "embedding_proj_layer"):
            raise ValueError(
                f"model must embed pages and queries, as ColPaliForRetrieval does, but got {type(model).__name__}."
            )
        self.model: Any = model
        self.layers: nn.ModuleList = text.layers
        self.processor = processor

    def attribute(self, page: Any, query: str | Mapping[str, Any]) -> RetrievalAttribution:
        """Explain every token of a query.

        Args:
            page: A picture, or what the processor returned for one.
            query: Its text, or what the processor returned for one query.

        Returns:
            RetrievalAttribution: Results; ``phrases([slice(0, None)])`` has those of the whole query.

        Raises:
            ValueError: if page or query are not one example, or there is no processor for a picture or text.
            FloatingPointError: if scores or relevance are NaN or infinite.
        """
        if self.processor is None and not (isinstance(page, Mapping) and isinstance(query, Mapping)):
            raise ValueError("processor must be the model's own, where page or query are not its output, but got None.")
        page_inputs = page if isinstance(page, Mapping) else self.processor.process_images(images=[page])
        query_inputs = query if isinstance(query, Mapping) else self.processor.process_queries(text=[query])
        arguments, words = (check_example(self.model.vlm, inputs) for inputs in (page_inputs, query_inputs))
        with torch.no_grad():
            queries, tokens = (self.model(**inputs).embeddings[0] for inputs in (words, arguments))
        similarities = queries @ tokens.mT  # (W, S)
        evidence = explain_rows(
            *(self.model, self.layers, lambda: self.model(**arguments).embeddings, similarities.argmax(1)),
            lambda found: (found * queries).sum(-1),
        )
        relevance, _, scores, totals = normalize_evidence(evidence)
        pictures = picture_tokens(PicturePrompt(self.model.vlm, arguments, len(tokens)))
        return RetrievalAttribution(
            tuple(token_texts(getattr(self.processor, "tokenizer", None), words["input_ids"][0].tolist())),
            *(relevance, None, scores, totals, len(tokens)),
            None if pictures is None else tuple(pictures),
            attended=evidence.attended,
            similarities=similarities,
        )
