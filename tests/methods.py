"""Every method of ours, with what its oracle says. A new method is one more row."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import oracle
from oracle import Dense
from torch import Tensor

from captum_gmar import (
    CDAM,
    AttCAT,
    AttentionEvidence,
    AttentionGradCAM,
    AttentionRollout,
    FullGradPlus,
    GMARAttribution,
    GMARPlusPlus,
    GradECLIP,
    GradientRollout,
    GradSAM,
    LeGrad,
    LibraAttCAT,
    LibraFullGradPlus,
    RawAttention,
    TokenEvidence,
)
from captum_gmar.attr.catalogue import OURS


def implemented(method, implementation):
    """Return the method with its plan's implementation set: "batched", "blocks" or "fused"."""
    method.plan = replace(method.plan, implementation=implementation)
    return method


class Method(NamedTuple):
    make: Callable[..., Any]
    expected: Callable[[Dense], Tensor] | None  # R (N, T, T); None where another test knows
    reads_gradient: bool = True
    conserves: bool = True  # whether relevance is in [0, 1] and sums to at most 1
    takes_tokens: bool = True
    is_signed: bool = False  # whether relevance may be below zero
    of_log_odds: bool = False  # whether what is explained depends on all logits


def gmar(norm, **options):
    return lambda dense: oracle.gmar(dense.attention, dense.gradient, norm, **options)


def per_token(make, expected, is_signed=True, of_log_odds=False):
    return Method(make, expected, conserves=False, takes_tokens=False, is_signed=is_signed, of_log_odds=of_log_odds)


METHODS = {
    "GMAR l1": Method(partial(GMARAttribution, norm="l1"), gmar("l1")),
    "GMAR l2": Method(partial(GMARAttribution, norm="l2", residual=0.5), gmar("l2", residual=0.5)),
    "GMAR forward": Method(partial(GMARAttribution, recursion="forward"), gmar("l1", recursion="forward")),
    "GMAR additive": Method(
        partial(GMARAttribution, recursion="additive", residual=0.5, norm="l2"),
        gmar("l2", recursion="additive", residual=0.5),
        conserves=False,
    ),
    "GMAR from layer 1": Method(partial(GMARAttribution, start_layer=1), gmar("l1", start_layer=1)),
    "GMAR forward from layer -2": Method(
        partial(GMARAttribution, recursion="forward", start_layer=-2), gmar("l1", recursion="forward", start_layer=-2)
    ),
    "rollout": Method(AttentionRollout, oracle.attention_rollout, reads_gradient=False),
    "rollout forward": Method(
        partial(AttentionRollout, recursion="forward", residual=0.3),
        partial(oracle.attention_rollout, recursion="forward", residual=0.3),
        reads_gradient=False,
    ),
    "rollout additive": Method(
        partial(AttentionRollout, recursion="additive", start_layer=1),
        partial(oracle.attention_rollout, recursion="additive", start_layer=1),
        reads_gradient=False,
        conserves=False,
    ),
    "rollout max": Method(
        partial(AttentionRollout, head_fusion="max"),
        partial(oracle.attention_rollout, head_fusion="max"),
        reads_gradient=False,
    ),
    "rollout min": Method(
        partial(AttentionRollout, head_fusion="min", start_layer=-2),
        partial(oracle.attention_rollout, head_fusion="min", start_layer=-2),
        reads_gradient=False,
    ),
    "rollout on disk": Method(
        partial(AttentionRollout, disk_offload=True), oracle.attention_rollout, reads_gradient=False
    ),
    "raw attention": Method(RawAttention, oracle.raw_attention, reads_gradient=False),
    "gradient rollout": Method(GradientRollout, oracle.gradient_rollout, conserves=False),
    "gradient rollout, GMAR's heads": Method(
        partial(GradientRollout, head_fusion="gmar", norm="l2", residual=0.7, start_layer=1),
        partial(oracle.gradient_rollout, norm="l2", residual=0.7, start_layer=1),
        conserves=False,
    ),
    "attention Grad-CAM": Method(AttentionGradCAM, oracle.attention_grad_cam, conserves=False),
    "GMAR++": Method(GMARPlusPlus, oracle.gmar_plus_plus),
    "GMAR++, from layer 1": Method(
        partial(GMARPlusPlus, residual=0.2, start_layer=1), partial(oracle.gmar_plus_plus, residual=0.2, start_layer=1)
    ),
    "Grad-SAM": Method(GradSAM, oracle.grad_sam, conserves=False, takes_tokens=False),
    "LeGrad": Method(LeGrad, oracle.legrad, conserves=False, takes_tokens=False),
    "LeGrad, from layer 1": Method(
        partial(LeGrad, start_layer=1), partial(oracle.legrad, start_layer=1), conserves=False, takes_tokens=False
    ),
    "attention evidence": per_token(AttentionEvidence, oracle.attention_evidence, of_log_odds=True),
    "attention evidence, from layer 1": per_token(
        partial(AttentionEvidence, start_layer=1), partial(oracle.attention_evidence, start_layer=1), of_log_odds=True
    ),
    "Libra FullGrad+": per_token(LibraFullGradPlus, partial(oracle.full_grad_plus, balanced=True)),
    "Libra FullGrad+ of the log-odds": per_token(
        partial(LibraFullGradPlus, score="log-odds"),
        partial(oracle.full_grad_plus, balanced=True, of=oracle.log_odds),
        of_log_odds=True,
    ),
    "token evidence": per_token(TokenEvidence, oracle.token_evidence, of_log_odds=True),
    "FullGrad+": per_token(FullGradPlus, oracle.full_grad_plus),
    "Libra AttCAT": per_token(LibraAttCAT, partial(oracle.attcat, balanced=True)),
    "AttCAT": per_token(AttCAT, oracle.attcat),
    "CDAM": per_token(CDAM, oracle.cdam),
    "Grad-ECLIP": per_token(GradECLIP, oracle.grad_eclip, is_signed=False),
}
# Names of the methods that read attention in the engine's passes.
READERS = [name for name in OURS if name != "published-gmar"]
# The first row of each public class.
PUBLIC = list({getattr(m.make, "func", m.make): name for name, m in reversed(METHODS.items())}.values())
NAMES = {
    GMARAttribution: "GMAR",
    AttentionRollout: "Attention rollout",
    RawAttention: "Raw attention",
    GradientRollout: "Gradient rollout",
    AttentionGradCAM: "Attention Grad-CAM",
    GMARPlusPlus: "GMAR++",
    GradSAM: "Grad-SAM",
    LeGrad: "LeGrad",
    AttentionEvidence: "Attention evidence",
    LibraFullGradPlus: "Libra FullGrad+",
    FullGradPlus: "FullGrad+",
    TokenEvidence: "Token evidence",
    LibraAttCAT: "Libra AttCAT",
    AttCAT: "AttCAT",
    CDAM: "CDAM",
    GradECLIP: "Grad-ECLIP",
}
