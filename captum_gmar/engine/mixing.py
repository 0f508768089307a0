"""Attention met at its values, however a model writes it: by torch's functions, by softmax and a product, by sampling.

What is met is the tensor of values alone; what a model computes is left as it is. So evidence, which is value times
gradient, needs no attention matrix and no common grid.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from captum_gmar.engine.arguments import mapped, without_parameter
from captum_gmar.engine.forward import check_no_dropout
from captum_gmar.engine.interception import AttentionMode
from captum_gmar.engine.places import Mixed

SOFTMAX, MIXING_PRODUCTS = frozenset({"softmax"}), frozenset({"matmul", "bmm", "baddbmm", "einsum", "__matmul__"})
CONVOLUTIONS = frozenset({"conv1d", "conv2d", "conv3d"})
EACH = -1
SAMPLING = "grid_sample"  # of deformable attention, which is linear in the map it samples


class ValueMode(AttentionMode):
    """Within the block, in this thread, keeps the values that attention mixes, in the order of the calls.

    Parameters are constants, so that nothing is kept for their gradient.

    Attributes:
        layer: the layer that is under way; values are kept where there is one. EACH: every attention counts as one.
        entry: the tokens that entered the list of layers that is under way.
        values: of each attention, as they were met.
        maps: the spatial shapes of what convolutions gave, of what depends on the inputs.
    """

    def __init__(self, layer: int | None) -> None:
        super().__init__()
        self.layer = layer
        self.entry: Tensor | None = None
        self.values: list[Mixed] = []
        self.maps: dict[tuple[int, ...], None] = {}
        self._weights: WeakIdKeyDictionary = WeakIdKeyDictionary()  # what was made of attention weights alone

    def attend(self, query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """As torch does, keeping the values that are mixed."""
        check_no_dropout(p=kwargs.get("dropout_p", args[1] if len(args) > 1 else 0.0))
        self._keep(value)
        return F.scaled_dot_product_attention(query, key, value, *args, **kwargs)

    def attend_in_module(self, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor | None]:
        """As torch does, without gradients of parameters."""
        args, kwargs = mapped(without_parameter, (args, kwargs))
        return super().attend_in_module(*args, **kwargs)

    def run(self, func: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """Calls a function of torch, and keeps the values where it mixes them by weights of attention."""
        name = getattr(func, "__name__", "")
        if name in ("__get__", "__set__", "__delete__") or not torch.is_grad_enabled():
            return func(*args, **kwargs)
        if func is F.dropout:
            check_no_dropout(*args, **kwargs)
        args, kwargs = mapped(without_parameter, (tuple(args), kwargs))
        if self.layer is not None:
            self._meet(name, args)
        result = func(*args, **kwargs)
        self._note(name, args, result)
        return result

    def _meet(self, name: str, args: Sequence[Any]) -> None:
        """Keeps the values, if this is where weights and values are brought together."""
        if name == SAMPLING:
            self._keep(args[0], is_map=True)
        elif name in MIXING_PRODUCTS and len(self._weights):
            operands = [argument for argument in _arguments_within(args) if isinstance(argument, Tensor)]
            weights = [operand for operand in operands if operand in self._weights]
            values = [operand for operand in operands if operand not in self._weights]
            if len(weights) == 1 and len(values) == 1:
                self._keep(values[0])

    def _keep(self, value: Tensor, is_map: bool = False) -> None:
        if self.layer is not None and value.requires_grad:
            layer = len(self.values) if self.layer == EACH else self.layer
            self.values.append(Mixed(layer, value, is_map, self.entry))

    def _note(self, name: str, args: Sequence[Any], result: Any) -> None:
        if not isinstance(result, Tensor) or not result.requires_grad:
            return
        if name in CONVOLUTIONS:
            self.maps[tuple(result.shape[2:])] = None
        elif name in SOFTMAX or (name not in MIXING_PRODUCTS and len(self._weights) and self._is_of_weights(args)):
            self._weights[result] = None

    def _is_of_weights(self, args: Sequence[Any]) -> bool:
        """Whether all that it is made of, of what depends on the inputs, are attention weights."""
        operands = [argument for argument in args if isinstance(argument, Tensor) and argument.requires_grad]
        return bool(operands) and all(operand in self._weights for operand in operands)


def _arguments_within(args: Sequence[Any]) -> Iterator[Any]:
    """The arguments, also those in a list, as einsum may take them."""
    for argument in args:
        yield from argument if isinstance(argument, list | tuple) else [argument]
