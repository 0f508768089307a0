"""Scores that methods explain."""

import torch
from torch import tensor
from torch.testing import assert_close

from captum_gmar import AttentionEvidence
from captum_gmar.attr.scores import log_odds


def test_several_labels_at_once_are_log_odds_already(vit, images):
    alone = AttentionEvidence(vit, forward_func=lambda inputs: vit(inputs).logits[:, 3]).relevance(images)
    assert (AttentionEvidence(vit).relevance(images, 3) - alone).abs().max() > 1e-3
    vit.config.problem_type = "multi_label_classification"
    assert_close(AttentionEvidence(vit).relevance(images, 3), alone, rtol=1e-4, atol=1e-7)


def test_log_odds():
    """By their definition in double precision, also where a probability rounds to one or zero; and their gradient."""
    logits = tensor([[0.5, -1.0, 2.0], [90.0, 0.0, -1.0], [-300.0, 3.0, 3.0]], requires_grad=True)
    others = tensor([[1, 2], [0, 2], [0, 1]])
    expected = logits.double() - logits.double()[:, others].logsumexp(-1)
    assert_close(log_odds(logits).double(), expected)
    (found,) = torch.autograd.grad(log_odds(logits).sum(), logits)
    (exact,) = torch.autograd.grad(expected.sum(), logits)
    assert_close(found, exact)
