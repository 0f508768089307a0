"""The result of explaining an answer: the relevance of each token or word, by picture, prompt and earlier words."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from captum_gmar.vlm.decoder_pass import RowEvidence
from captum_gmar.vlm.layouts import Picture
from captum_gmar.vlm.words import words_of


@dataclass(frozen=True)
class AnswerAttribution:
    """What fed each of the W tokens of an answer, as shares of all evidence for and against the token.

    Attributes:
        tokens: W, the answer's, as text where there is a tokenizer, else their ids.
        relevance: (W, S) by the tokens of the decoder's own sequence: the prompt, with the pictures in it, and the
            answer but for its last token. Zero where a token stands behind the one that it could feed.
        encoded_relevance: (W, S') by the encoder's tokens, of models that read these by cross-attention; else None.
        scores: (W,) what is explained: the log-odds of each token, or the log of its odds against the contrast's.
        totals: (W,) all evidence of each token, for and against, of which relevance is the shares, in units of the
            scores.
        prompt_length: how many of the S tokens come before the answer's first.
        pictures: which tokens stand for which places; None where the model's way to lay them out is not known.
        is_of_words: whether the tokens are whole words, or phrases, by now.
        contrast: what was taken off, as text where there is a tokenizer; None where nothing was.
    """

    tokens: tuple[str, ...]
    relevance: Tensor
    encoded_relevance: Tensor | None
    scores: Tensor
    totals: Tensor
    prompt_length: int
    pictures: tuple[Picture, ...] | None
    is_of_words: bool = False
    contrast: str | None = None

    def words(self) -> "AnswerAttribution":
        """The same of whole words and marks of punctuation, in place of their tokens."""
        return self if self.is_of_words else self.phrases(words_of(self.tokens))

    def phrases(self, spans: Sequence[slice]) -> "AnswerAttribution":
        """The same of phrases: evidence and scores of a phrase are the sums of its tokens'.

        Args:
            spans: which tokens make each phrase, of this attribution, for example ``[slice(1, 3)]``.

        Raises:
            ValueError: if there are no phrases, or one has no tokens.
        """
        if not spans or not all(self.tokens[span] for span in spans):
            raise ValueError(
                f"spans must name at least one of the {len(self.tokens)} tokens each. Got {spans} instead."
            )
        is_of = torch.zeros(len(spans), len(self.tokens)).to(self.totals)
        for row, span in enumerate(spans):
            is_of[row, span] = 1
        evidence = RowEvidence(
            is_of @ (self.relevance * self.totals[:, None]),
            None if self.encoded_relevance is None else is_of @ (self.encoded_relevance * self.totals[:, None]),
            is_of @ self.scores,
        )
        texts = tuple((" " if self.is_of_words else "").join(self.tokens[span]).strip() for span in spans)
        return AnswerAttribution(texts, *share_out(evidence), self.prompt_length, self.pictures, True, self.contrast)

    def picture_relevance(self, picture: int = 0) -> Tensor:
        """(W, rows, columns): each token's evidence in one picture, on the grid of the model's image tokens.

        Where queries read the picture, as in BLIP-2, what these hold is handed on to the patches by attention rollout
        (:func:`~captum_gmar.vlm.query_former.patches_of_queries`).

        Raises:
            ValueError: if it is not known which token stands for which place.
            IndexError: if there is no such picture.
        """
        if self.pictures is None:
            raise ValueError("It is not known which image token of this model stands for which place in the picture.")
        if picture not in range(len(self.pictures)):
            raise IndexError(
                f"picture must be below the number of pictures, {len(self.pictures)}. Got {picture!r} instead."
            )
        return self.pictures[picture].map(self._attended(self.pictures[picture]))

    def _attended(self, picture: Picture) -> Tensor:
        """Relevance by the tokens of the sequence in which the picture's are."""
        relevance = self.encoded_relevance if picture.is_encoded else self.relevance
        assert relevance is not None
        return relevance

    @property
    def answer_relevance(self) -> Tensor:
        """(W, answer's tokens - 1): each token's evidence in the answer's tokens before it."""
        return self.relevance[:, self.prompt_length :]

    def shares(self) -> dict[str, Tensor]:
        """What each part of the input holds of each token's evidence, for and against, (W,) each: "pictures", "prompt"
        and "answer", of the pictures only where it is known which tokens are theirs. Together they are 1."""
        pictures = [
            self._attended(picture)[:, picture.positions.to(self.relevance.device)].abs().sum(1)
            for picture in self.pictures or ()
        ]
        picture_share = torch.stack(pictures).sum(0) if pictures else torch.zeros_like(self.scores)
        answer = self.answer_relevance.abs().sum(1)
        encoded = 0 if self.encoded_relevance is None else self.encoded_relevance.abs().sum(1)
        rest = self.relevance.abs().sum(1) + encoded - answer - picture_share
        return {"pictures": picture_share, "prompt": rest, "answer": answer}


def share_out(evidence: RowEvidence) -> tuple[Tensor, Tensor | None, Tensor, Tensor]:
    """Shares (W, S) and (W, S') of all evidence of each word, for and against, zero where there is none; the scores and
    that evidence, (W,)."""
    parts = [evidence.tokens] if evidence.encoded is None else [evidence.tokens, evidence.encoded]
    together = torch.cat(parts, 1)
    if not (torch.isfinite(together).all() and torch.isfinite(evidence.scores).all()):
        raise FloatingPointError("Expected finite logits and gradients of the answer, but some are NaN or infinite.")
    totals = together.abs().sum(1)
    shares, tokens = together / totals.where(totals > 0, 1)[:, None], evidence.tokens.shape[1]
    return shares[:, :tokens], None if evidence.encoded is None else shares[:, tokens:], evidence.scores, totals
