"""Small layers, reduced in one batch after the backward pass: all of them take as many operations as one.

Where matrices are small, an operation takes as long whatever the number of its numbers. So torch's own attention runs
forward and backward, autograd gives the gradient of each layer's output, and A and G of all layers are computed at
once.

Letters in shapes: N examples, L layers, H heads, T tokens, D head dimension.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.graph import get_gradient_edge

from captum_gmar.engine.kernels.layer import AttentionLayer, LayerGradient, LayerTap, attention_weights, resolve_scale
from captum_gmar.engine.kernels.precision import sum_dtype
from captum_gmar.engine.kernels.reduction import MATRICES, NOTHING, HeadSums, Matrix, Reduction, head_norms

# N·H·T² of a layer up to which that is quicker than blocks, which share their products with the pass backward.
MOST_ELEMENTS = {"cpu": 2**14, "elsewhere": 2**19}


@dataclass(eq=False)
class BatchedTap(LayerTap):
    """A layer that is read after the backward pass, if there is one, together with others; its edge is its output."""

    is_read: bool = True
    layer: AttentionLayer | None = None
    value: Tensor | None = None

    def attend(self, layer: AttentionLayer, value: Tensor) -> Tensor:
        """Compute ``F.scaled_dot_product_attention``."""
        output = F.scaled_dot_product_attention(layer.query, layer.key, value, layer.mask, scale=layer.scale)
        if self.is_read:
            if not output.requires_grad:  # of a layer that is cut off from those before it
                output = output.requires_grad_().clone()  # which the model may write to, as it may not to a leaf
            self.layer, self.value, self.edge = layer, value, get_gradient_edge(output)
        return output

    def read_later(self, gradient: Tensor | None) -> LayerGradient | None:
        """Return the layer with the gradient (N, H, T, D) of its output, if there is one."""
        if gradient is None or self.layer is None or self.value is None:
            return None
        query, key, mask, scale, *_ = self.layer
        return LayerGradient(query, key, self.value, gradient, mask, resolve_scale(query, scale))

    def release(self) -> None:
        """Release all tensors and the listener."""
        super().release()
        self.layer = self.value = self.edge = None


def is_small(query: Tensor, value: Tensor) -> bool:
    """Return whether layers (N, H, T, D) are read together."""
    examples, heads, tokens, _ = query.shape
    most = MOST_ELEMENTS["cpu" if query.device.type == "cpu" else "elsewhere"]
    return query.shape == value.shape and examples * heads * tokens * tokens <= most


class LayerBatch:
    """Layers of one shape, precision, device and kind of mask; the first read computes all their matrices."""

    def __init__(self, layers: Sequence[AttentionLayer | LayerGradient]) -> None:
        self.layers: Sequence[Any] = layers
        self._matrices: dict[Matrix, Tensor] = {}
        self._sums: dict[tuple[Matrix, int], Tensor] = {}
        self._norms: dict[str, Tensor] = {}

    def read(self, layer: int, reduction: Reduction) -> HeadSums:
        """Compute a reduction of one of the layers."""
        return HeadSums(
            NOTHING if reduction.matrix is None else self._rows(layer, reduction.matrix, reduction.row),
            NOTHING if reduction.norm is None else self._norm(reduction.norm)[layer],
            NOTHING if reduction.totals is None else self._sum(reduction.totals, -1)[layer],
        )

    def _rows(self, layer: int, name: Matrix, row: Tensor | None) -> Tensor:
        if row is None:
            return self._sum(name, -2)[layer]
        matrix = self._matrix(name)[layer]
        return torch.matmul(row.to(matrix.dtype).view(len(row), 1, 1, -1), matrix).squeeze(2)

    def _sum(self, name: Matrix, dim: int) -> Tensor:
        if (name, dim) not in self._sums:
            self._sums[name, dim] = self._matrix(name).sum(dim)
        return self._sums[name, dim]

    def _norm(self, name: str) -> Tensor:
        if name not in self._norms:
            self._norms[name] = head_norms(name, self.gradient)
        return self._norms[name]

    def _matrix(self, name: Matrix) -> Tensor:
        """Return a matrix (L, N, H, T, T)."""
        if name not in self._matrices:
            self._matrices[name] = MATRICES[name](self)
        return self._matrices[name]

    @cached_property
    def attention(self) -> Tensor:
        """A (L, N, H, T, T)"""
        query, key = self._stack(lambda layer: layer.query), self._stack(lambda layer: layer.key)
        scale = self.layers[0].scale
        if self.layers[0].mask is None:
            return attention_weights(query, key, None, scale)
        masks = torch.stack([layer.mask.expand(*query.shape[1:-1], key.shape[-2]) for layer in self.layers])
        return attention_weights(query, key, masks, scale)

    @cached_property
    def gradient(self) -> Tensor:
        """G (L, N, H, T, T)"""
        return self.grad_output @ self._stack(lambda layer: layer.value).mT

    @property
    def spare(self) -> Tensor:
        """Memory (L, N, H, T, T) for products of the two, which are kept."""
        return torch.empty_like(self.gradient)

    @cached_property
    def grad_output(self) -> Tensor:
        """(L, N, H, T, D)"""
        return self._stack(lambda layer: layer.grad_output)

    def _stack(self, part: Callable[[Any], Tensor]) -> Tensor:
        stacked = torch.stack([part(layer) for layer in self.layers])
        return stacked.to(sum_dtype(stacked.dtype))


def readers(layers: Sequence[AttentionLayer | LayerGradient]) -> list[Callable[[Reduction], HeadSums]]:
    """Return a function for each layer that computes its reductions, together with those of layers of one kind."""
    groups: dict[object, list[int]] = {}
    for place, layer in enumerate(layers):
        query, mask = layer.query, layer.mask
        kind = query.shape, query.dtype, query.device, layer.scale, None if mask is None else mask.dtype
        groups.setdefault(kind, []).append(place)
    answers: dict[int, Callable[[Reduction], HeadSums]] = {}
    for indices in groups.values():
        batch = LayerBatch([layers[place] for place in indices])
        answers.update((place, partial(batch.read, number)) for number, place in enumerate(indices))
    return [answers[place] for place in range(len(layers))]
