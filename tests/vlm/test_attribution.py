"""Words, phrases and pictures of an explained answer, by hand."""

import pytest
import torch
from torch.testing import assert_close

from captum_gmar.vlm.attribution import AnswerAttribution, normalize_evidence
from captum_gmar.vlm.decoder_pass import RowEvidence
from captum_gmar.vlm.image_tokens import PictureTokens

EVIDENCE = torch.tensor([[2.0, -1.0, 0.0, 0.0], [1.0, 1.0, -2.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
SCORES = torch.tensor([3.0, 4.0, 5.0])


@pytest.fixture
def attribution():
    """Return three tokens after a prompt of two, of which the first is a picture."""
    shares = normalize_evidence(RowEvidence(EVIDENCE, None, SCORES))
    return AnswerAttribution((" c", "at", "."), *shares, 2, (PictureTokens(torch.tensor([[0]])),))


def test_shares_of_the_evidence(attribution):
    assert_close(attribution.relevance[:2], torch.tensor([[2 / 3, -1 / 3, 0, 0], [1 / 4, 1 / 4, -1 / 2, 0]]))
    assert not attribution.relevance[2].any()
    assert attribution.totals.tolist() == [3, 4, 0]
    shares = {name: share.tolist() for name, share in attribution.shares().items()}
    assert shares["pictures"] == pytest.approx([2 / 3, 1 / 4, 0])
    assert shares["prompt"] == pytest.approx([1 / 3, 1 / 4, 0])
    assert shares["answer"] == pytest.approx([0, 1 / 2, 0])
    assert_close(attribution.picture_relevance(), attribution.relevance[:, :1, None])
    assert_close(attribution.answer_relevance, attribution.relevance[:, 2:])


def test_words_and_phrases_are_the_sums_of_their_tokens(attribution):
    words = attribution.words()
    assert words.tokens == ("cat", ".")
    assert_close(words.relevance[0] * words.totals[0], EVIDENCE[:2].sum(0))
    assert words.totals.tolist() == [5, 0]
    assert words.scores.tolist() == [7, 5]
    assert words.words() is words
    assert words.phrases([slice(0, 2)]).tokens == ("cat .",)
    with pytest.raises(ValueError, match="spans must name at least one of the 3 tokens each"):
        attribution.phrases([slice(3, 3)])


def test_evidence_of_an_encoder_is_summed_as_well():
    encoded = torch.tensor([[4.0], [0.0], [1.0]])
    shares = normalize_evidence(RowEvidence(EVIDENCE, encoded, SCORES))
    attribution = AnswerAttribution(("a", "b", "c"), *shares, 2, None)
    assert attribution.totals.tolist() == [7, 4, 1]
    whole = attribution.phrases([slice(None)])
    assert_close(whole.encoded_relevance * whole.totals, torch.tensor([[5.0]]))
    assert_close(sum(attribution.shares().values()), torch.ones(3))
    with pytest.raises(ValueError, match="attribution must say which image token"):
        attribution.picture_relevance()


def test_numbers_that_are_not_finite():
    with pytest.raises(FloatingPointError, match="answer must have finite logits and gradients"):
        normalize_evidence(RowEvidence(EVIDENCE, None, SCORES / 0))
