"""Scores that methods explain, and their scale."""

from dataclasses import replace

import torch
from torch import Tensor, nn

from captum_gmar.engine.kernels.precision import widen
from captum_gmar.engine.models.patch_grid import config_of
from captum_gmar.engine.plan import Plan
from captum_gmar.engine.request import Request


def log_odds(logits: Tensor) -> Tensor:
    r"""Return :math:`\log \frac{p}{1 - p}` of every class (N, classes), also where p rounds to 1.

    One class alone, and outputs of more dimensions, stay as they are.
    """
    if logits.dim() != 2 or logits.shape[1] == 1:
        return logits
    logits = widen(logits)
    top = torch.zeros_like(logits, dtype=torch.bool).scatter_(1, logits.argmax(1, keepdim=True), True)
    others_of_top = logits.masked_fill(top, -torch.inf).logsumexp(1, keepdim=True)
    others = logits.logsumexp(1, keepdim=True) + torch.log1p(-logits.softmax(1).masked_fill(top, 0))  # there p is ≤ 1/2
    return logits - torch.where(top, others_of_top, others)


def plan_of_log_odds(plan: Plan, model: nn.Module, request: Request) -> Plan:
    """Return the plan with log-odds as its score, where classes compete and the request has no contrast."""
    has_several_labels = getattr(config_of(model), "problem_type", None) == "multi_label_classification"
    return plan if request.contrast is not None or has_several_labels else replace(plan, score=log_odds)


def shares(evidence: Tensor) -> Tensor:
    """Return evidence (N, T) divided by its sum of magnitudes; zero where there is none."""
    total = evidence.abs().sum(-1, keepdim=True)
    return evidence / total.where(total > 0, 1)
