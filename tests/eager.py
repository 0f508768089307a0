"""Attention that transformers returns itself, with its gradient, in float64."""

import copy
from typing import NamedTuple

import torch
from torch import Tensor


class Eager(NamedTuple):
    """Attention of every layer (L, N, H, T, T), its gradient, and the logits (N, classes)."""

    attention: Tensor
    gradient: Tensor
    logits: Tensor


def eager_attention(model, pixels, target=0):
    """Run a float64 copy of a ViT with eager attention, and differentiate the target's logits."""
    model = copy.deepcopy(model).double().eval()
    model.set_attn_implementation("eager")
    output = model(pixels.double(), output_attentions=True)
    gradient = torch.autograd.grad(output.logits[:, target].sum(), output.attentions)
    return Eager(torch.stack(output.attentions).detach(), torch.stack(gradient), output.logits.detach())


def patches_of(row, side=4):
    """(N, side, side) of a row over tokens (N, T), the patches of which come last."""
    return row[:, -side * side :].view(-1, side, side)
