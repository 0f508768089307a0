"""Result of an explained answer."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from captum_gmar.files.sounds import Sound
from captum_gmar.vlm.decoder_pass import RowEvidence
from captum_gmar.vlm.image_tokens import PictureTokens
from captum_gmar.vlm.layouts import Picture
from captum_gmar.vlm.words import group_words, word_spans


@dataclass(frozen=True)
class AnswerAttribution:
    """Evidence for each of the W tokens of an answer, as shares of all evidence for and against the token.

    Attributes:
        tokens: W texts of the answer's tokens, or ids without a tokenizer.
        relevance: (W, S) relevance of the decoder sequence's tokens: the prompt with its pictures, and the answer
            without its last token. Later tokens have relevance 0.
        encoded_relevance: (W, S') relevance of the encoder's tokens, for models with cross-attention; else None.
        scores: (W,) explained scores in nats: each token's log-odds, or its logit minus the contrast's.
        totals: (W,) sum of absolute evidence of each token in nats.
        prompt_length: number of tokens before the answer.
        pictures: image tokens of each picture, or None if the model's layout is unknown.
        is_of_words: the tokens are whole words or phrases.
        contrast: text or ids of the contrast, or None.
        sound: the sound that the model was given, at the rate that its processor takes; or None.
        attended: (W, S') attention × value norm, summed over layers and heads, of the encoder's tokens for models with
            cross-attention; else (W, S) of the decoder's. :meth:`focus` takes it.
        gains: (W,) scores minus those for blank pictures or silence, in nats; None unless they were requested.
        prompt_tokens: texts of the tokens before the answer, "" for those of pictures; empty if they are unknown.
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
    sound: Sound | None = None
    prompt_tokens: tuple[str, ...] = ()
    gains: Tensor | None = None
    attended: Tensor | None = None

    def words(self) -> "AnswerAttribution":
        """Sum tokens to words and punctuation marks."""
        return self if self.is_of_words else self.phrases(group_words(self.tokens))

    def phrases(self, spans: Sequence[slice]) -> "AnswerAttribution":
        """Sum evidence and scores of tokens to phrases.

        Args:
            spans: Tokens of each phrase, for example ``[slice(1, 3)]``.
        """
        if not spans or not all(self.tokens[span] for span in spans):
            raise ValueError(f"spans must name at least one of the {len(self.tokens)} tokens each, but got {spans}.")
        members = torch.zeros(len(spans), len(self.tokens)).to(self.totals)
        for row, span in enumerate(spans):
            members[row, span] = 1
        evidence = RowEvidence(
            members @ (self.relevance * self.totals[:, None]),
            None if self.encoded_relevance is None else members @ (self.encoded_relevance * self.totals[:, None]),
            members @ self.scores,
            None if self.attended is None else members @ self.attended,
        )
        texts = tuple((" " if self.is_of_words else "").join(self.tokens[span]).strip() for span in spans)
        relevance, encoded, scores, totals = normalize_evidence(evidence)
        result = replace(self, tokens=texts, is_of_words=True, relevance=relevance, encoded_relevance=encoded)
        gains = None if self.gains is None else members @ self.gains
        return replace(result, scores=scores, totals=totals, gains=gains, attended=evidence.attended)

    def picture_relevance(self, picture: int = 0) -> Tensor:
        """Return a picture's relevance (W, rows, columns) on the grid of image tokens.

        A sound has one row, and a video's relevance is (W, time, rows, columns).

        In models with query tokens, such as BLIP-2, attention rollout distributes these to patches
        (:func:`~captum_gmar.vlm.query_former.query_patch_weights`).
        """
        if self.pictures is None:
            raise ValueError(
                "attribution must say which image token is for which position, but its model does not. Use its "
                "numbers for each token."
            )
        if picture not in range(len(self.pictures)):
            raise IndexError(
                f"picture must be below {len(self.pictures)}, the number of pictures, but got {picture!r}."
            )
        return self.pictures[picture].map(self._sequence_relevance(self.pictures[picture]))

    def focus(self, picture: int = 0) -> Tensor:
        """Return where in a picture, video or sound each word comes from, with the shape of :meth:`picture_relevance`.

        Values are at least 0, and each word's sum is 1; it is 0 for a word that reads nothing of it. They are
        :func:`focus_attention` of evidence and of attention × value norm, and do not show what speaks against a word.
        """
        relevance = self.picture_relevance(picture)
        assert self.pictures is not None
        assert self.attended is not None
        attended = self.pictures[picture].map(self.attended)
        return focus_attention(relevance.flatten(1), attended.flatten(1)).view_as(relevance)

    def moments(self, picture: int = 0) -> Tensor:
        """Return the second (time,) of each of a video's time steps, as the processor says.

        ``picture_relevance().sum((2, 3))`` has the relevance of each.
        """
        tokens = self.pictures[picture] if self.pictures else None
        if not isinstance(tokens, PictureTokens) or tokens.moments is None:
            raise ValueError(
                "moments() requires a video whose processor says its time, but got none. Use the times with which you "
                "took its frames."
            )
        return torch.tensor(tokens.moments)

    def _sequence_relevance(self, picture: Picture) -> Tensor:
        """Return the relevance of the sequence that holds the picture's tokens."""
        relevance = self.encoded_relevance if picture.is_encoded else self.relevance
        assert relevance is not None
        return relevance

    def times(self) -> Tensor:
        """Return the first and the last second (W, 2) of each word or token in the sound.

        They are those of :func:`~captum_gmar.vlm.words.word_spans` on attention × value norm, which finds borders
        better than evidence. The words are in the order of the sound, as those of a transcript are.
        """
        tokens = next((picture for picture in self.pictures or () if isinstance(picture, PictureTokens)), None)
        if tokens is None or tokens.seconds is None:
            raise ValueError("times() must be of words of a sound, but got an answer without a sound of known time.")
        assert self.attended is not None
        attended, seconds = tokens.map(self.attended)[:, 0], math.inf
        if self.sound is not None:  # what follows it in the model's window is padding
            seconds = len(self.sound.samples) / self.sound.sampling_rate
            attended = attended[:, : max(len(self.tokens), round(seconds / tokens.seconds))]
        if len(attended) > attended.shape[1]:
            raise ValueError(
                f"times() must be of no more words than tokens of the sound, but got {len(attended)} words and "
                f"{attended.shape[1]} tokens. Pass several tokens as one word to phrases()."
            )
        return (word_spans(attended, tokens.seconds) * tokens.seconds).clamp(max=seconds)

    @property
    def answer_relevance(self) -> Tensor:
        """Relevance (W, answer's tokens - 1) of the answer's earlier tokens."""
        return self.relevance[:, self.prompt_length :]

    def shares(self) -> dict[str, Tensor]:
        """Return the shares (W,) of "pictures", "prompt" and "answer" in each token's absolute evidence; the sum is 1.

        If the model's layout of image tokens is unknown, the prompt includes the pictures.
        """
        pictures = torch.zeros_like(self.scores)
        for picture in self.pictures or ():
            positions = picture.positions.to(self.relevance.device)
            pictures = pictures + self._sequence_relevance(picture)[:, positions].abs().sum(1)
        answer = self.answer_relevance.abs().sum(1)
        encoded = 0 if self.encoded_relevance is None else self.encoded_relevance.abs().sum(1)
        prompt = self.relevance.abs().sum(1) + encoded - answer - pictures
        return {"pictures": pictures, "prompt": prompt, "answer": answer}


def focus_attention(relevance: Tensor, attended: Tensor) -> Tensor:
    r"""Weight attention × value norm a (W, T) by evidence r (W, T) for each word and an even part, to a sum of 1.

    .. math::
        f_{wj} \propto a_{wj} \left( \frac{r^+_{wj}}{\sum_k r^+_{wk}} + \frac{1}{T} \right), \qquad
        a_{wj} = \sum_l \sum_h A_{l,h,ij} \, \lVert v_{l,h,j} \rVert
    """
    positive, least = relevance.clamp(min=0), torch.finfo(relevance.dtype).tiny
    shares = positive / positive.sum(1, keepdim=True).clamp(min=least)
    focus = attended * (shares + 1 / shares.shape[1])
    return focus / focus.sum(1, keepdim=True).clamp(min=least)


def normalize_evidence(evidence: RowEvidence) -> tuple[Tensor, Tensor | None, Tensor, Tensor]:
    """Return shares (W, S) and (W, S') of each word's absolute evidence, scores (W,) and absolute evidence (W,)."""
    tokens = evidence.tokens.shape[1]
    columns = evidence.tokens if evidence.encoded is None else torch.cat([evidence.tokens, evidence.encoded], 1)
    if not (torch.isfinite(columns).all() and torch.isfinite(evidence.scores).all()):
        raise FloatingPointError("answer must have finite logits and gradients, but some are not. Use float32.")
    totals = columns.abs().sum(1)
    shares = columns / totals.where(totals > 0, 1)[:, None]
    return shares[:, :tokens], None if evidence.encoded is None else shares[:, tokens:], evidence.scores, totals
