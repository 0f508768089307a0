"""What was computed of what, as autograd's graph tells it after a pass forward.

Letters in shapes: N examples, T tokens.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.graph import Node


def depends(tensors: Iterable[Tensor], node: Node, cuts: list[Node] | None = None) -> bool:
    """Whether any of the tensors was computed from what came out of ``node``; the nearest steps are looked at first.

    Operations on the way of which torch has no gradient, so that it would be zero, are added to ``cuts``.
    """
    pending: deque[Sequence[tuple[Node | None, int]]] = deque([[(tensor.grad_fn, 0) for tensor in tensors]])
    seen: set[Node] = set()
    while pending:
        for current, _ in pending.popleft():
            if current is node:
                return True
            if current is not None and current not in seen:
                seen.add(current)
                pending.append(current.next_functions)
                if cuts is not None and type(current).__name__ == "CppFunction" and "NotImplemented" in current.name():
                    cuts.append(current)
    return False


def upstream(node: Node) -> set[Node]:
    """Return the node and all that its result was computed from."""
    found, pending = {node}, [node]
    while pending:
        following = {each for each, _ in pending.pop().next_functions if each is not None} - found
        found |= following
        pending += following
    return found


def bottlenecks(output: Node, start: Node) -> list[Node]:
    """Return the nodes, latest first, that lie on every path by which ``output`` was computed from ``start``."""
    leading = {start}
    later = sorted(upstream(output) - upstream(start), key=lambda node: node._sequence_nr())
    for node in later:
        if any(following in leading for following, _ in node.next_functions):
            leading.add(node)
    pending, found = {output} & leading, []
    for node in filter(leading.__contains__, reversed(later)):
        pending.discard(node)
        if not pending:
            found.append(node)
        pending |= {following for following, _ in node.next_functions if following in leading}
    return found


def shape_of(node: Node) -> tuple[int, ...]:
    """Return the shape of the node's first result; () where torch does not tell."""
    results = getattr(node, "_input_metadata", ())
    return tuple(results[0].shape) if results else ()


def reorders_rows(node: Any) -> bool:
    """Return whether the operation flips, rolls or indexes the first dimension of its argument."""
    kind, dims = node.name(), len(shape_of(node))
    if kind in ("FlipBackward0", "RollBackward0"):  # which save a negative dimension without its sign
        return any((dim - 2**64 if dim >= 2**63 else dim) % dims == 0 for dim in node._saved_dims)
    rows = node._saved_indices[0] if kind == "IndexBackward0" else None
    if not isinstance(rows, Tensor) or rows.dim() != 1 or rows.dtype != torch.long:
        return False
    return bool((rows != torch.arange(len(rows), device=rows.device)).any())


class Pooling(NamedTuple):
    """Attention by which a model pools its tokens after the last layer."""

    attention: Tensor  # (N, T), the mean over heads and queries
    node: Node | None  # where its result stands in autograd's graph

    def is_read_by(self, output: object) -> bool:
        """Whether what the model returns was computed from it."""
        names = ("logits", "pooler_output")  # the latter of a backbone, from which no gradient is asked
        outputs = [output] if isinstance(output, Tensor) else [getattr(output, name, None) for name in names]
        logits = next((tensor for tensor in outputs if tensor is not None), None)
        return isinstance(logits, Tensor) and self.node is not None and depends((logits,), self.node)
