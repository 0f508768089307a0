"""Queries to autograd's graph after a forward pass.

Letters in shapes: N examples, T tokens.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.graph import Node


def depends(tensors: Iterable[Tensor], node: Node, cuts: list[Node] | None = None) -> bool:
    """Return whether any of the tensors was computed from the output of ``node``, by breadth-first search.

    The search adds operations without a gradient in torch to ``cuts``.
    """
    pending: deque[Sequence[tuple[Node | None, int]]] = deque([[(tensor.grad_fn, 0) for tensor in tensors]])
    visited: set[Node] = set()
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


def reorders_rows(node: Any) -> bool:
    """Return whether the operation flips, rolls or indexes the first dimension of its argument."""
    kind, dims = node.name(), len(shape_of(node))
    if kind in ("FlipBackward0", "RollBackward0"):  # they save negative dimensions as unsigned
        return any((dim - 2**64 if dim >= 2**63 else dim) % dims == 0 for dim in node._saved_dims)
    rows = node._saved_indices[0] if kind == "IndexBackward0" else None
    if not isinstance(rows, Tensor) or rows.dim() != 1 or rows.dtype != torch.long:
        return False
    return bool((rows != torch.arange(len(rows), device=rows.device)).any())


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
