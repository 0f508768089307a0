"""Memory for blocks of attention, and how large they are.

Letters in shapes: N examples, H heads, T tokens, D head dimension.
"""

import math
import threading
from collections.abc import Iterator
from functools import cached_property

import torch
from torch import Tensor

from captum_gmar.engine.kernels.layer import AttentionLayer, iterate_slices
from captum_gmar.engine.kernels.precision import sum_dtype

# A block holds as many examples as fit these elements with all their query rows, or else some rows of one example.
BLOCK_ELEMENTS = {"cpu": 1 << 19, "cuda": 1 << 25}
MIN_BLOCK_ROWS = 128
# A block of some heads; on CPU for each of a few threads. Fewer elements mean that key and value are read
# and their gradients added up more often, and more of them that a block leaves the cache before it has been used.
ELEMENTS_APART = {"cpu": 9 << 16, "cuda": 1 << 25}
MOST_THREADS = 4


class Workspace:
    """Memory that the layers take one after the other: to get new memory each time, page by page, takes longer."""

    def __init__(self) -> None:
        self.kept: dict[str, Tensor] = {}
        self.views: dict[tuple[object, ...], Tensor] = {}  # of it, which layers of one shape ask for again
        self.lock = threading.Lock()  # of the layer that has it: devices have threads of their own in backward

    def take(self, name: str, shape: tuple[int, ...], like: Tensor, room: int = 0) -> Tensor:
        """Return memory for this shape, of ``room`` elements at least; the former tensor of this name is lost."""
        place = name, shape, like.dtype, like.device, room
        if place not in self.views:
            self.views[place] = self._memory(name, max(room, math.prod(shape)), like)[: math.prod(shape)].view(shape)
        return self.views[place]

    def _memory(self, name: str, elements: int, like: Tensor) -> Tensor:
        kept = self.kept.get(name)
        if kept is None or kept.numel() < elements or (kept.dtype, kept.device) != (like.dtype, like.device):
            self.views = {place: view for place, view in self.views.items() if place[0] != name}
            kept = self.kept[name] = torch.empty(elements, dtype=like.dtype, device=like.device)
        return kept

    def clear(self) -> None:
        """Release all memory."""
        self.kept, self.views = {}, {}


class Scratch:
    """Memory for one block of a layer, which its blocks share, in their precision; default: single at least."""

    def __init__(
        self,
        layer: AttentionLayer,
        workspace: Workspace | None = None,
        precision: torch.dtype | None = None,
        matrices: int = 3,
    ) -> None:
        self.examples, self.heads, tokens, self.keys = layer.shape
        self.like = layer.query.new_empty(0, dtype=precision or sum_dtype(layer.query.dtype))
        self.workspace = workspace or Workspace()
        device = layer.query.device.type
        fold = 4 // min(4, self.like.element_size())  # how many more fit in the same memory
        elements = fold * BLOCK_ELEMENTS.get(device, BLOCK_ELEMENTS["cuda"]) * 3 // matrices
        self.step = min(max(1, elements // (self.heads * tokens**2)), self.examples)
        self.rows = min(max(MIN_BLOCK_ROWS, elements // (self.heads * tokens)), tokens)
        elements = fold * ELEMENTS_APART.get(device, ELEMENTS_APART["cuda"])
        if device == "cpu":
            elements *= min(torch.get_num_threads(), MOST_THREADS)
        self.heads_apart = min(max(1, elements // tokens**2 // 2 * 2), self.heads)  # even, for two threads
        self.rows_apart = min(max(MIN_BLOCK_ROWS, elements // (self.heads_apart * tokens)), tokens)
        self.elements = max(self.step * self.heads * self.rows, self.heads_apart * self.rows_apart) * tokens

    def parts(self) -> Iterator[slice]:
        """Yield slices of the examples, as many at a time as a block holds."""
        return iterate_slices(self.examples, self.step)

    def groups(self) -> Iterator[slice]:
        """Yield slices of an example's heads, as many at a time as go together."""
        return iterate_slices(self.heads, self.heads_apart)

    @cached_property
    def zeros(self) -> Tensor:
        """A zero for each key."""
        return self.like.new_zeros(self.keys)

    def view(self, matrix: int, shape: tuple[int, ...]) -> Tensor:
        """Return the memory of one of the matrices of a block."""
        return self.workspace.take(f"matrix {matrix}", shape, self.like, self.elements)
