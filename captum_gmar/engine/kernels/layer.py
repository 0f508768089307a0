"""Attention layers, forward and backward, and some examples or rows of them.

Letters in shapes: N examples, H heads, T tokens, D head dimension.
"""

import ctypes
import io
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import IO, Any, Literal, NamedTuple, Protocol, TypeAlias

import numpy as np
import torch
from torch import Tensor

from captum_gmar.engine.kernels.precision import sum_dtype

CHANNELS_MORE = 8  # E: kernels take head dimensions in steps of so many
Implementation: TypeAlias = Literal["batched", "blocks", "fused"]


class AttentionLayer(NamedTuple):
    """The tensors that a layer's attention is computed from."""

    query: Tensor  # (N, H, T, D)
    key: Tensor  # (N, H, T, D)
    mask: Tensor | None  # boolean or additive, broadcastable to (N, H, T, T)
    scale: float | None
    lse: Tensor | None = None  # (N, H, T), log Σ exp of each query's scores, if it is known
    file: IO[bytes] | None = None  # that holds query and key, if they are not in memory
    place: int = 0  # in the file, in bytes

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(N, H, T, T)"""
        examples, heads, tokens, _ = self.query.shape
        return examples, heads, tokens, self.key.shape[-2]

    def part(self, examples: slice) -> "AttentionLayer":
        """Return the layer of some examples, in memory."""
        mask = None if self.mask is None else self.mask.expand(self.shape)
        if self.file is None and covers_all(examples, len(self.query)):
            return self._replace(mask=mask)
        query, key = self._read(examples) if self.file else (self.query[examples], self.key[examples])
        return AttentionLayer(query, key, None if mask is None else mask[examples], self.scale)

    def to(self, device: torch.device) -> "AttentionLayer":
        """Return the layer on this device."""
        mask, lse = (None if t is None else t.to(device) for t in (self.mask, self.lse))
        return self._replace(query=self.query.to(device), key=self.key.to(device), mask=mask, lse=lse)

    def store(self, file: IO[bytes]) -> "AttentionLayer":
        """Return the layer with query and key at the end of a file, and one number each in memory."""
        place = file.seek(0, io.SEEK_END)
        torch.stack(self[:2], 1).detach().cpu().view(torch.uint8).numpy().tofile(file)
        query, key = (tensor.new_zeros(()).expand(tensor.shape) for tensor in self[:2])
        with suppress(AttributeError, TypeError):  # of C libraries other than GNU's
            ctypes.CDLL(None).malloc_trim(0)  # which keeps what was freed between the nodes of autograd's graph
        return self._replace(query=query, key=key, file=file, place=place)

    def _read(self, examples: slice) -> tuple[Tensor, Tensor]:
        """Read query and key (n, H, T, D) of some examples of a stored layer."""
        assert self.file is not None
        part = self.query[examples]
        self.file.seek(self.place + 2 * self.query[: examples.start].nbytes)
        both = torch.from_numpy(np.fromfile(self.file, np.uint8, 2 * part.nbytes)).view(part.dtype)
        query, key = both.view(len(part), 2, *part.shape[1:]).to(part.device).unbind(1)
        return query, key


class LayerGradient(NamedTuple):
    """An attention layer in the backward pass."""

    query: Tensor  # (N, H, T, D)
    key: Tensor  # (N, H, T, D)
    value: Tensor  # (N, H, T, D)
    grad_output: Tensor  # (N, H, T, D)
    mask: Tensor | None  # boolean or additive, broadcastable to (N, H, T, T)
    scale: float  # of the scores
    lse: Tensor | None = None  # (N, H, T), log Σ exp of each query's scores, if it is known


class BackwardListener(Protocol):
    """The receiver of layers in a backward pass, each with its number."""

    def on_blocks(self, number: int, examples: slice, blocks: Any) -> None:
        """Receive some examples of a layer as blocks, for every part of the examples in turn."""

    def on_gradient(self, number: int, layer: LayerGradient, reads_rows: bool) -> Tensor | None:
        """Receive a layer; return the row of relevance (N, T), where its rows are read by the value's gradient."""

    def on_rows(self, number: int, rows: Tensor) -> None:
        """Receive the rows (N, H, T) that were read so."""


@dataclass(eq=False)
class LayerTap(ABC):
    """An attention layer of a forward pass, which a listener receives in the backward pass.

    The gradient of ``edge``, a tensor or an edge of autograd's graph, brings the backward pass to the layer. A scalar
    that receives zero will do: autograd comes to it even if nothing else asks for it.
    """

    number: int = 0
    edge: Any = None
    lse: Tensor | None = None
    listener: BackwardListener | None = None
    goes_on: bool = True  # whether layers before it are received as well

    @abstractmethod
    def attend(self, layer: AttentionLayer, value: Tensor) -> Tensor:
        """Compute ``F.scaled_dot_product_attention`` of a layer and its value (N, H, T, D)."""

    def read_later(self, gradient: Tensor | None) -> LayerGradient | None:
        """Return the layer where it is read after the backward pass, by the gradient of its edge."""
        return None

    def release(self) -> None:
        """Release tensors and the listener."""
        self.listener = self.lse = None


def resolve_scale(query: Tensor, scale: float | None) -> float:
    """Return the scale of scores: the given one, or torch's where none is."""
    return float(query.shape[-1] ** -0.5) if scale is None else scale


def attention_weights(query: Tensor, key: Tensor, mask: Tensor | None = None, scale: float | None = None) -> Tensor:
    """Return the attention (..., queries, keys) of queries (..., queries, D) and keys (..., keys, D).

    The mask is boolean, True for keys that are seen, or additive. A query whose keys are all masked attends to nothing,
    as in ``F.scaled_dot_product_attention``.
    """
    scores = query @ key.mT * resolve_scale(query, scale)
    if mask is None:
        return scores.softmax(-1)
    scores = scores.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else scores + mask
    is_blind = scores.detach().amax(-1, keepdim=True) == -torch.inf
    return scores.masked_fill(is_blind, 0).softmax(-1).masked_fill(is_blind, 0)


def iterate_slices(number: int, step: int) -> Iterator[slice]:
    """Yield slices of a number of things, ``step`` at a time."""
    for start in range(0, number, step):
        yield slice(start, min(start + step, number))


def covers_all(part: slice, number: int) -> bool:
    """Return whether a slice of :func:`iterate_slices` covers all: then slicing is an operation for nothing."""
    return bool(part.start == 0 and part.stop == number)


def slice_examples(tensor: Tensor, part: slice) -> Tensor:
    """Slice the first dimension."""
    return tensor if covers_all(part, len(tensor)) else tensor[part]


def slice_rows(tensor: Tensor, rows: slice) -> Tensor:
    """Slice the second dimension."""
    return tensor if covers_all(rows, tensor.shape[1]) else tensor[:, rows]


def flatten_heads(tensor: Tensor, precision: torch.dtype | None = None) -> Tensor:
    """Flatten heads, (n, H, T, D) → (nH, T, D), in a precision; default: single at least."""
    precision = precision or sum_dtype(tensor.dtype)
    if tensor.dtype != precision:  # one copy does both
        tensor = tensor.to(precision, memory_format=torch.contiguous_format)
    return tensor[0] if len(tensor) == 1 else tensor.flatten(0, 1)
