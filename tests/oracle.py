"""The formulas in float64, slowly and from the paper's page: nothing of the package is used here."""

import copy
from unittest import mock

import torch
from torch import Tensor


def float64_softmax(scores: Tensor, dim: int, dtype: torch.dtype | None = None) -> Tensor:
    return torch.softmax(scores, dim)


def attention_and_gradient(
    model: torch.nn.Module, inputs: Tensor, targets: list[int]
) -> tuple[list[Tensor], list[Tensor]]:
    """A and G of every layer (N, H, T, T), first layer first, of a float64 copy of the model, eager."""
    config = copy.deepcopy(model.config)
    config._attn_implementation = "eager"
    eager = type(model)(config)
    eager.load_state_dict(model.state_dict())
    with mock.patch("torch.nn.functional.softmax", float64_softmax):  # transformers asks for float32 there
        output = eager.double().eval()(inputs.double().requires_grad_(), output_attentions=True)
    logit = sum(output.logits[example, target] for example, target in enumerate(targets))
    gradients = torch.autograd.grad(logit, output.attentions)
    return [a.detach() for a in output.attentions], list(gradients)


def head_importance(gradients: list[Tensor], norm: str) -> Tensor:
    """(N, L, H)"""
    shape = (len(gradients[0]), len(gradients), gradients[0].shape[1])
    weights = torch.zeros(shape, dtype=torch.float64)
    for example in range(shape[0]):
        for layer in range(shape[1]):
            scores = []
            for head in range(shape[2]):
                g = gradients[layer][example, head]
                scores.append(g.abs().sum() if norm == "l1" else g.pow(2).sum().sqrt())
            for head in range(shape[2]):
                weights[example, layer, head] = scores[head] / sum(scores)
    return weights


def gmar(attentions: list[Tensor], gradients: list[Tensor], norm: str, residual: float = 1.0) -> Tensor:
    """The whole rollout matrix R (N, T, T), multiplied out layer by layer."""
    weights = head_importance(gradients, norm)
    rollouts = []
    for example in range(len(attentions[0])):
        rollout = torch.eye(attentions[0].shape[-1], dtype=torch.float64)
        for layer, attention in enumerate(attentions):
            fused = torch.zeros_like(rollout)
            for head in range(attention.shape[1]):
                fused += weights[example, layer, head] * attention[example, head]
            identity = torch.eye(len(fused), dtype=torch.float64)
            rollout = (fused + residual * identity) / (1 + residual) @ rollout
        rollouts.append(rollout)
    return torch.stack(rollouts)
