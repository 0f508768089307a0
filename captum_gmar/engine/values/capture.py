"""Capture of the values that attention mixes, however a model writes it: by torch's functions, by softmax and a
product, by sampling.

The mode captures the tensor of values alone, and leaves the model's results as they are. So value times gradient needs
no attention matrix and no common grid.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from captum_gmar.engine.checks import check_no_dropout
from captum_gmar.engine.hooks.attention_mode import ACCESS, AttentionCall, AttentionMode
from captum_gmar.engine.hooks.constants import detach_parameters, map_nested
from captum_gmar.engine.values.positions import MixedValues
from captum_gmar.engine.values.residual_stream import TokenStreams, query_nodes

SOFTMAX, MIXING_PRODUCTS = frozenset({"softmax"}), frozenset({"matmul", "bmm", "baddbmm", "einsum", "__matmul__"})
WEIGHING_PRODUCTS = frozenset({"mul", "multiply", "__mul__", "__rmul__"})  # of what is summed up afterwards
CONVOLUTIONS = frozenset({"conv1d", "conv2d", "conv3d", "max_pool2d", "_max_pool2d"})  # a pooling ends many a stem
EACH = -1
SAMPLING = "grid_sample"  # of deformable attention, which is linear in the map it samples


class ValueMode(AttentionMode):
    """The values that attention mixes within the block and this thread, in the order of the calls.

    Parameters are constants, so that nothing is kept for their gradient. With ``writes_out`` attention is written out,
    where torch computes it at once, and kept beside the values.
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

    def attend_in_module(self, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor | None]:
        """Attend as torch's module does, without gradients of parameters."""
        args, kwargs = detach_parameters((args, kwargs))
        return super().attend_in_module(*args, **kwargs)

    def run(self, func: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """Call a function of torch, and keep the values where it multiplies them by weights of attention."""
        name = getattr(func, "__name__", "")
        if name in ACCESS or not torch.is_grad_enabled():
            return func(*args, **kwargs)
        if func is F.dropout:
            check_no_dropout(*args, **kwargs)
        args, kwargs = detach_parameters((tuple(args), kwargs))
        if name == SAMPLING:
            return self._sample(func, args, kwargs)
        operands = self._weights_and_values(name, args) if len(self._weights) else None
        if operands is None:
            result = func(*args, **kwargs)
            self._note(name, args, result)
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

    def _note(self, name: str, args: Sequence[Any], result: Any) -> None:
        if not isinstance(result, Tensor) or not result.requires_grad:
            return
        if name in CONVOLUTIONS:
            self.maps[tuple(result.shape[2:])] = None
        elif name in SOFTMAX:
            self._weights[result] = query_nodes(result)
        elif name not in MIXING_PRODUCTS and (len(self._weights) or len(self._sampled)):
            operands = [argument for argument in _arguments_within(args) if isinstance(argument, Tensor)]
            operands = [operand for operand in operands if operand.requires_grad]
            for made_of_them in (self._weights, self._sampled):
                if operands and all(operand in made_of_them for operand in operands):
                    made_of_them[result] = made_of_them[operands[0]]


def _arguments_within(args: Sequence[Any]) -> Iterator[Any]:
    """Yield the arguments, also those in a list, as einsum may take them."""
    for argument in args:
        yield from argument if isinstance(argument, list | tuple) else [argument]


def _channels(weights: Tensor, values: Tensor) -> int | None:
    """Return the dimension of the values along which each token's weight is one; None if there is none."""
    if weights.dim() != values.dim():
        return None
    sizes = zip(weights.shape, values.shape, strict=True)
    return next((dim for dim, (weight, value) in enumerate(sizes) if weight == 1 < value), None)
