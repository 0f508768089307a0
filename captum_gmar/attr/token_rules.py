"""Formulas of the methods that multiply tokens by their gradient: every rule reads like its formula.

Letters in shapes: N examples, Q queries, T tokens, P patches, H heads, D head dimension.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from captum_gmar.attr.scores import shares
from captum_gmar.engine.kernels.precision import widen
from captum_gmar.engine.plan import TokenRule

if TYPE_CHECKING:  # which loads the pass, and that is not needed before it runs
    from captum_gmar.engine.hidden_states.capture import LayerTokens


class FullGradRule(TokenRule):
    r"""FullGrad+: the mean over layers of the tokens that enter them, times their gradient."""

    def select_tensors(self, layers: "LayerTokens") -> Sequence[Tensor]:
        """Return the tokens that enter each layer."""
        return layers.tokens[:-1]

    def relevance(self, layers: "LayerTokens", gradients: Sequence[Tensor]) -> Tensor:
        """Return the mean over layers."""
        return torch.stack([*map(layers.sum_channels, layers.tokens[:-1], gradients)]).mean(0)


class AttCATRule(TokenRule):
    """AttCAT: the tokens that leave each layer times their gradient, weighted by the attention that they receive."""

    def select_tensors(self, layers: "LayerTokens") -> Sequence[Tensor]:
        """Return the tokens that leave each layer."""
        layers.check_attention()
        return layers.tokens[1:]

    def relevance(self, layers: "LayerTokens", gradients: Sequence[Tensor]) -> Tensor:
        """Return the weighted sum over layers."""
        products = map(layers.sum_channels, layers.tokens[1:], gradients)
        weighted = [
            layer.received_attention.to(product.device) * product
            for layer, product in zip(layers.attention, products, strict=True)
        ]
        return torch.stack(weighted).sum(0)


class TokenEvidenceRule(TokenRule):
    """Token evidence: what each token holds at every depth, what prefix tokens read of it, and the classifier."""

    def select_tensors(self, layers: "LayerTokens") -> Sequence[Tensor]:
        """Return the tokens between layers, then each attention's output."""
        layers.check_attention()
        return [*layers.tokens, *(layer.output for layer in layers.attention)]

    def relevance(self, layers: "LayerTokens", gradients: Sequence[Tensor]) -> Tensor:
        """Return the shares (N, T) of all evidence."""
        held, read, left = self.parts(layers, gradients)
        return shares(held.mean(0) + read + left)

    def parts(self, layers: "LayerTokens", gradients: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Return evidence in what enters each layer (L, N, T), in what was read of tokens, and in the last (N, T)."""
        depths = len(layers.tokens)
        *held, left = map(layers.sum_channels, layers.tokens, gradients[:depths])
        read = [
            layer.first_query_evidence(layers.prefix_tokens, gradient).to(left.device)
            for layer, gradient in zip(layers.attention, gradients[depths:], strict=True)
        ]
        return torch.stack(held), torch.stack(read).sum(0), left


class TokenEvidenceCandidates(TokenEvidenceRule):
    """Token evidence and other maps of the same pass: a budget's candidates, in the order in which they count."""

    def relevance(self, layers: "LayerTokens", gradients: Sequence[Tensor]) -> Tensor:
        """Return the shares (N, C, T) of each candidate."""
        held, read, left = self.parts(layers, gradients)
        mean, upper = held.mean(0), held[len(held) // 2 :].mean(0)
        received = [layer.received_attention.to(left.device) for layer in layers.attention]
        weighted = (torch.stack(received) * torch.cat([held[1:], left[None]])).sum(0)
        candidates = [mean + read + left, read, mean, upper, weighted]
        return shares(torch.stack([candidate.expand_as(left) for candidate in candidates], 1))


class CDAMRule(TokenRule):
    """CDAM: what enters the last layer's attention, times its gradient."""

    def select_tensors(self, layers: "LayerTokens") -> Sequence[Tensor]:
        """Return what enters the last layer's attention."""
        return [layers.attention_input]

    def relevance(self, layers: "LayerTokens", gradients: Sequence[Tensor]) -> Tensor:
        """Return the product, summed over channels."""
        return layers.sum_channels(layers.attention_input, gradients[0])


class GradECLIPRule(TokenRule):
    """Grad-ECLIP: the last attention's values times its output's gradient, in a loosened attention's weights."""

    def select_tensors(self, layers: "LayerTokens") -> Sequence[Tensor]:
        """Return the output of the last attention."""
        layers.check_attention()
        return [layers.attention[-1].output]

    def relevance(self, layers: "LayerTokens", gradients: Sequence[Tensor]) -> Tensor:
        """Return the positive part, zero for the tokens before the patches."""
        last, patches = layers.attention[-1], layers.grid.patches
        gradient, query, key, value = map(_joined_heads, (gradients[0], last.layer.query, last.layer.key, last.value))
        queries: slice | Tensor = slice(None)
        if gradient.device.type == "cpu":  # another device would have to be waited for
            queries = gradient.abs().amax((0, 2)).nonzero().flatten()  # those that are read
        loosened = _loosened_attention(query[:, queries], key[:, -patches:])
        products = gradient[:, queries] @ value[:, -patches:].mT  # (N, Q, P)
        relevance = (loosened * products).sum(1).clamp(min=0)  # (N, P)
        return F.pad(relevance, (key.shape[1] - patches, 0))


def _loosened_attention(query: Tensor, key: Tensor) -> Tensor:
    """Compute the cosine (N, Q, P) of queries (N, Q, channels) and keys (N, P, channels), from 0 to 1 over the keys.

    All keys alike count as 1.
    """
    similarity = F.normalize(query, dim=-1) @ F.normalize(key, dim=-1).mT
    low, high = similarity.aminmax(dim=-1, keepdim=True)
    return torch.where(high > low, (similarity - low) / (high - low), 1)


def _joined_heads(tensor: Tensor) -> Tensor:
    """Return (N, T, H · D) of (N, H, T, D), in single precision at least."""
    return widen(tensor).transpose(1, 2).flatten(2)
