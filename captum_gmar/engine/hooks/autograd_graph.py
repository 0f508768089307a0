"""Queries to autograd's graph after a forward pass.

Letters in shapes: N examples, T tokens.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.graph import Node


def gradients(
    selected: Tensor, tensors: Sequence[Any], retain_graph: bool = False, allow_unused: bool = False
) -> tuple[Tensor, ...]:
    """Compute gradients of the explained outputs (N,) with respect to tensors or edges of the graph."""
    # Examples are independent, so the sum has their gradients with fewer operations.
    return torch.autograd.grad(selected.sum(), tensors, retain_graph=retain_graph or None, allow_unused=allow_unused)


def depends(tensors: Iterable[Tensor], node: Node, cuts: list[Node] | None = None, beyond: Iterable[Node] = ()) -> bool:
    """Return whether any of the tensors was computed from the output of ``node``, by breadth-first search.

    The search ends at the nodes ``beyond``, and adds operations without a gradient in torch to ``cuts``.
    """
    pending: deque[Sequence[tuple[Node | None, int]]] = deque([[(tensor.grad_fn, 0) for tensor in tensors]])
    visited = set(beyond)
    while pending:
        for current, _ in pending.popleft():
            if current is node:
                return True
            if current is not None and current not in visited:
                visited.add(current)
                pending.append(current.next_functions)
                if cuts is not None and type(current).__name__ == "CppFunction" and "NotImplemented" in current.name():
                    cuts.append(current)
    return False


def upstream(node: Node) -> set[Node]:
    """Return the node and all nodes that its result was computed from."""
    nodes, pending = {node}, [node]
    while pending:
        following = {each for each, _ in pending.pop().next_functions if each is not None} - nodes
        nodes |= following
        pending += following
    return nodes


def bottlenecks(output: Node, start: Node) -> list[Node]:
    """Return the nodes on every path from ``start`` to ``output``, latest first."""
    leading = {start}
    later = sorted(upstream(output) - upstream(start), key=lambda node: node._sequence_nr())
    for node in later:
        if any(following in leading for following, _ in node.next_functions):
            leading.add(node)
    pending, nodes = {output} & leading, []
    for node in filter(leading.__contains__, reversed(later)):
        pending.discard(node)
        if not pending:
            nodes.append(node)
        pending |= {following for following, _ in node.next_functions if following in leading}
    return nodes


def shape_of(node: Node) -> tuple[int, ...]:
    """Return the shape of the node's first result, or () if unknown."""
    results = getattr(node, "_input_metadata", ())
    return tuple(results[0].shape) if results else ()


ROW_INDICES = {
    "IndexSelectBackward0": "_saved_index",
    "GatherBackward0": "_saved_index",
    "SortBackward0": "_saved_indices",
}


def reorders_rows(node: Any) -> bool:
    """Return whether the operation flips, rolls, indexes, sorts or joins rows of its arguments in another order."""
    kind, dims = node.name(), len(shape_of(node))
    if kind in ("FlipBackward0", "RollBackward0"):
        return any(_is_first(dim, dims) for dim in node._saved_dims)
    if kind in ("CatBackward0", "StackBackward0") and _is_first(node._saved_dim, dims):
        starts = [start for edge in node.next_functions if (start := _first_row(edge)) is not None]
        return starts != sorted(starts)
    rows = node._saved_indices[0] if kind == "IndexBackward0" else None
    if kind in ROW_INDICES and _is_first(node._saved_dim, dims):
        rows = getattr(node, ROW_INDICES[kind])
    if not isinstance(rows, Tensor) or rows.dtype != torch.long or (rows.dim() > 1 and kind == "IndexBackward0"):
        return False
    order = torch.arange(len(rows), device=rows.device).view(-1, *[1] * (rows.dim() - 1))
    return bool((rows != order).any())


def _is_first(dim: int, dims: int) -> bool:
    return _signed(dim) % dims == 0


def _signed(number: int) -> int:
    return number - 2**64 if number >= 2**63 else number  # nodes save negative ones as unsigned


def _first_row(edge: tuple[Any, int]) -> int | None:
    """Return the first row that a tensor was selected from, or None if it was not selected."""
    pending, visited = [edge], set()
    while pending:
        node, number = pending.pop()
        if node is None or node in visited:
            continue
        visited.add(node)
        kind = node.name()
        if kind == "UnbindBackward0":
            return number
        if kind in ("SelectBackward0", "SliceBackward0", "SplitBackward0"):
            size, dims = int(node._saved_self_sym_sizes[0]), len(node._saved_self_sym_sizes)
            if _is_first(node._saved_dim, dims):
                if kind == "SplitBackward0":
                    return number * int(node._saved_split_size)
                first: int = node._saved_index if kind == "SelectBackward0" else node._saved_start
                return _signed(first) % size
        pending += node.next_functions
    return None


class Pooling(NamedTuple):
    """Attention pooling of tokens after the last layer."""

    attention: Tensor  # (N, T), mean over heads and queries
    node: Node | None  # of its result in autograd's graph

    def is_read_by(self, output: object) -> bool:
        """Return whether the model's output was computed from the pooling."""
        names = ("logits", "pooler_output")  # backbones have the latter
        outputs = [output] if isinstance(output, Tensor) else [getattr(output, name, None) for name in names]
        logits = next((tensor for tensor in outputs if tensor is not None), None)
        return isinstance(logits, Tensor) and self.node is not None and depends((logits,), self.node)
