"""Capture of the values that attention mixes, however a model writes it: by torch's functions, by softmax and a
product, by sampling.

The mode captures the tensor of values alone, and leaves the model's results as they are. So value times gradient needs
no attention matrix and no common grid.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, MutableMapping, Sequence
from typing import Any

from torch import Tensor
from torch.autograd.graph import Node
from torch.utils.weak import WeakIdKeyDictionary

from captum_gmar.engine.hooks.attention_mode import AttentionCall, ConstantParameterMode, check_no_dropout
from captum_gmar.engine.hooks.constants import map_nested
from captum_gmar.engine.values.positions import MixedValues

# Products of attention's scores, and of projections, and which of their factors stands for the queries.
FACTORS = {"Bmm": 0, "Mm": 0, "Baddbmm": 1, "Addmm": 1, "Linear": 0, "Convolution": 0}


class TokenStreams:
    """Residual streams of tokens in one forward pass, whose inputs are at ``start`` in autograd's graph.

    A token's position is that at which its stream began. Attention writes to its queries' tokens, so the trace follows
    queries alone. A stream that begins in constants, as that of a detector's queries, has no position.
    """

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


SOFTMAX, MIXING_PRODUCTS = frozenset({"softmax"}), frozenset({"matmul", "bmm", "baddbmm", "einsum", "__matmul__"})
WEIGHING_PRODUCTS = frozenset({"mul", "multiply", "__mul__", "__rmul__"})  # of what is summed up afterwards
CONVOLUTIONS = frozenset({"conv1d", "conv2d", "conv3d", "max_pool2d", "_max_pool2d"})  # a pooling ends many a stem
EACH = -1
SAME_DIMENSIONS = frozenset({"dropout", "__getitem__", "to", "type_as", "float", "half", "bfloat16"})  # as its operand
SAMPLING = "grid_sample"  # of deformable attention, which is linear in the map it samples


class ValueMode(ConstantParameterMode):
    """The values that attention mixes within the block and this thread, in the order of the calls.

    With ``writes_out`` attention is written out, where torch computes it at once, and kept beside the values.
    """

    def __init__(self, layer: int | None, writes_out: bool = False) -> None:
        super().__init__()
        self.layer = layer  # that runs, of whose values some are kept; EACH: every attention counts as one
        self.writes_out = writes_out
        self.entry: Tensor | None = None  # the tokens that entered the list of layers that runs
        self.is_separable = True  # no attention over positions came before the layers
        self.values: list[MixedValues] = []
        self.maps: dict[tuple[int, ...], None] = {}  # spatial shapes of convolutions of the inputs
        self.streams = TokenStreams()  # of tokens that stand for positions; of EACH, no other values are kept
        # what was made of attention weights alone, with where their queries stand
        self._weights: WeakIdKeyDictionary = WeakIdKeyDictionary()
        # their dimension that sums to one, from the end
        self._normalised: MutableMapping[Tensor, int | None] = WeakIdKeyDictionary()
        self._sampled: WeakIdKeyDictionary = WeakIdKeyDictionary()  # what was made of samples of a map alone

    def attend(self, call: AttentionCall) -> Tensor:
        """Attend as torch does, keeping the values."""
        check_no_dropout(p=call.dropout_p)
        if self.writes_out and call.query.requires_grad:
            weights = call.weights()
            attended = weights @ self._keep(call.value, weights)
        else:
            attended = call._replace(value=self._keep(call.value)).run()
        query = call.query.grad_fn
        self.streams.note(attended, [] if query is None else [query])
        return attended

    def run_on_constants(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call a function of torch, and keep the values where it multiplies them by weights of attention."""
        name = getattr(func, "__name__", "")
        if name == SAMPLING:
            return self._sample(func, args, kwargs)
        operands = self._weights_and_values(name, args) if len(self._weights) else None
        if operands is None:
            result = func(*args, **kwargs)
            self._note(name, args, result, kwargs.get("dim"))
            return result
        weights, value = operands
        kept = self._keep(value, weights, channels=_channels(weights, value) if name in WEIGHING_PRODUCTS else None)
        result = func(*map_nested(lambda argument: kept if argument is value else argument, args), **kwargs)
        self.streams.note(result, self._weights[weights])
        return result

    def _sample(self, func: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]) -> Tensor:
        sampled: Tensor = func(self._keep(args[0], is_map=True), *args[1:], **kwargs)
        where = [argument.grad_fn for argument in args[1:] if isinstance(argument, Tensor)]
        self.streams.note(sampled, [node for node in where if node is not None])
        self._sampled[sampled] = None
        return sampled

    def _weights_and_values(self, name: str, args: Sequence[Any]) -> tuple[Tensor, Tensor] | None:
        """Return both, if the function brings them together."""
        if name not in MIXING_PRODUCTS | WEIGHING_PRODUCTS:
            return None
        operands = [argument for argument in _arguments_within(args) if isinstance(argument, Tensor)]
        weights = [operand for operand in operands if operand in self._weights]
        values = [operand for operand in operands if operand not in self._weights]
        if len(weights) != 1 or len(values) != 1 or not values[0].requires_grad:
            return None
        if name in WEIGHING_PRODUCTS and (values[0] in self._sampled or _channels(weights[0], values[0]) is None):
            return None
        if name in MIXING_PRODUCTS and not _sums_over(self._normalised.get(weights[0]), name, args, weights[0]):
            return None
        return weights[0], values[0]

    def _keep(
        self, value: Tensor, weights: Tensor | None = None, is_map: bool = False, channels: int | None = None
    ) -> Tensor:
        """Return the values as a tensor of their own, whose gradient is that of this attention alone."""
        if not value.requires_grad:
            return value
        if self.layer is None:
            self.is_separable &= bool(self.values) or not self.streams.begins_in_inputs(value)
            return value
        if self.layer == EACH and not self.streams.begins_in_inputs(value):
            return value
        value = value.view_as(value)
        layer = len(self.values) if self.layer == EACH else self.layer
        self.values.append(
            MixedValues(layer, value, is_map, self.entry, channels, weights if self.writes_out else None)
        )
        return value

    def _note(self, name: str, args: Sequence[Any], result: Any, dim: int | None) -> None:
        if not isinstance(result, Tensor) or not result.requires_grad:
            return
        if name in CONVOLUTIONS:
            self.maps[tuple(result.shape[2:])] = None
        elif name in SOFTMAX:
            self._weights[result] = query_nodes(result)
            dim = args[1] if dim is None and len(args) > 1 else dim
            self._normalised[result] = dim if dim is None or dim < 0 else dim - result.dim()
        elif name not in MIXING_PRODUCTS and (len(self._weights) or len(self._sampled)):
            operands = [argument for argument in _arguments_within(args) if isinstance(argument, Tensor)]
            operands = [operand for operand in operands if operand.requires_grad]
            for made_of_them in (self._weights, self._sampled):
                if operands and all(operand in made_of_them for operand in operands):
                    made_of_them[result] = made_of_them[operands[0]]
                    if name in SAME_DIMENSIONS and result.dim() == operands[0].dim():
                        self._normalised[result] = self._normalised.get(operands[0])


def _arguments_within(args: Sequence[Any]) -> Iterator[Any]:
    """Yield the arguments, also those in a list, as einsum may take them."""
    for argument in args:
        yield from argument if isinstance(argument, list | tuple) else [argument]


def _sums_over(dim: int | None, name: str, args: Sequence[Any], weights: Tensor) -> bool:
    """Return whether a product sums over a dimension of its weights, from the end, as attention over the softmax's.

    A sum over queries of their classes' probabilities times their masks is none. It is true of a dimension unknown.
    """
    if dim is None:
        return True
    if name != "einsum":
        return dim == (-1 if args[-1] is not weights or weights.dim() == 1 else -2)
    equation, *operands = _arguments_within(args)
    if not isinstance(equation, str) or "->" not in equation:
        return True
    terms, _, output = equation.replace(" ", "").partition("->")
    place = next(place for place, operand in enumerate(operands) if operand is weights)
    letters = terms.split(",")[place].rpartition("...")[2]
    return -dim > len(letters) or letters[dim] not in output


def _channels(weights: Tensor, values: Tensor) -> int | None:
    """Return the dimension of the values along which each token's weight is one; None if there is none."""
    if weights.dim() != values.dim():
        return None
    sizes = zip(weights.shape, values.shape, strict=True)
    return next((dim for dim, (weight, value) in enumerate(sizes) if weight == 1 < value), None)
