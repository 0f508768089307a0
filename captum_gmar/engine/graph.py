"""What was computed of what, as autograd's graph tells it after a pass forward.

Letters in shapes: N examples, T tokens.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from typing import NamedTuple

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
