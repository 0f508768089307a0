"""Residual streams of tokens, traced in autograd's graph.

A token's position is that at which its residual stream began. Attention writes to its queries' tokens, so the trace
follows queries alone. A stream that begins in constants, as that of a detector's queries and of Perceiver's latent
tokens, has no position.
"""

from collections import deque
from collections.abc import Iterable

from torch import Tensor
from torch.autograd.graph import Node

# Products of attention's scores, and of projections, and which of their factors stands for the queries.
FACTORS = {"Bmm": 0, "Mm": 0, "Baddbmm": 1, "Addmm": 1, "Linear": 0, "Convolution": 0}


class TokenStreams:
    """Streams of tokens in one forward pass, whose inputs are at ``start`` in the graph."""

    def __init__(self) -> None:
        self.start: Node | None = None
        self._queries: dict[Node, list[Node]] = {}  # of what attention gave, where its queries stand
        self._of_places: set[Node] = set()

    def note(self, output: Tensor, queries: Iterable[Node]) -> None:
        """Note the queries of an attention output."""
        if output.grad_fn is not None:
            self._queries[output.grad_fn] = list(queries)

    def begins_in_inputs(self, tokens: Tensor) -> bool:
        """Return whether the tokens' stream began in the inputs."""
        if self.start is None or tokens.grad_fn is None:
            return False
        came_from: dict[Node, Node | None] = {tokens.grad_fn: None}
        pending = deque(came_from)
        while pending:
            node = pending.popleft()
            if node is self.start or node in self._of_places:
                self._of_places.update(_way(node, came_from))
                return True
            for following in self._queries.get(node, following_nodes(node)):
                if following not in came_from:
                    came_from[following] = node
                    pending.append(following)
        return False


def following_nodes(node: Node) -> list[Node]:
    """Return the nodes from which a node was computed."""
    return [following for following, _ in node.next_functions if following is not None]


def query_nodes(scores: Tensor) -> list[Node]:
    """Return the graph's nodes of the queries, by the scores that softmax takes."""
    node = scores.grad_fn
    while node is not None:
        factor = FACTORS.get(node.name().partition("Backward")[0])
        if factor is not None:
            following, _ = node.next_functions[factor]
            return [] if following is None else [following]
        following_one = following_nodes(node)
        node = following_one[0] if following_one else None
    return []


def _way(node: Node | None, came_from: dict[Node, Node | None]) -> Iterable[Node]:
    while node is not None:
        yield node
        node = came_from[node]
