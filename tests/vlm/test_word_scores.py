"""Log-odds of words in chunks of rows against the formula in float64."""

import pytest
import torch
from oracle import log_odds

from captum_gmar.vlm import word_scores as module
from captum_gmar.vlm.word_scores import word_scores

IDS = [4, 0, 8]


@pytest.fixture
def logits():
    return 3 * torch.randn(2, 3, 11, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("chunk", [1, 22, 1 << 20])
def test_scores_and_gradient_are_those_of_the_formula(logits, chunk, monkeypatch):
    monkeypatch.setattr(module, "_CHUNK_LOGITS", chunk)
    ours, theirs = (logits.clone().requires_grad_() for _ in range(2))
    scores, expected = word_scores(ours, IDS, None), log_odds(theirs)[:, range(3), IDS]
    torch.testing.assert_close(scores, expected)
    weights = torch.arange(1.0, 7.0, dtype=torch.float64).view(2, 3)
    (scores * weights).sum().backward()
    (expected * weights).sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad)


def test_a_word_that_is_almost_sure_keeps_its_odds():
    logits = torch.tensor([[[200.0, 0.0, 0.0]]], requires_grad=True)
    scores = word_scores(logits, [0], None)
    assert scores.item() == pytest.approx(200 - torch.tensor(2.0).log().item())
    scores.sum().backward()
    torch.testing.assert_close(logits.grad, torch.tensor([[[1.0, -0.5, -0.5]]]))


def test_half_precision_is_summed_in_single(logits):
    halves = logits.bfloat16().requires_grad_()
    scores = word_scores(halves, IDS, None)
    assert scores.dtype == torch.float32
    torch.testing.assert_close(scores, log_odds(halves.detach().double())[:, range(3), IDS].float())
    scores.sum().backward()
    assert halves.grad.dtype == torch.bfloat16


@pytest.mark.parametrize("contrast", [[2], [2, 3, 4]])
def test_a_contrast_subtracts_the_other_word(logits, contrast):
    others = contrast * (3 // len(contrast))
    expected = torch.stack([logits[:, row, IDS[row]] - logits[:, row, others[row]] for row in range(3)], 1)
    torch.testing.assert_close(word_scores(logits, IDS, contrast), expected)
