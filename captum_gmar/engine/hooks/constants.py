"""Arguments as constants, so that autograd keeps no tensors for unneeded gradients."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

# Most arguments have these types, and isinstance is slow for nn.Parameter.
PLAIN = frozenset({Tensor, int, float, bool, str, type(None), torch.Size, torch.dtype, torch.device})


def detach_parameters(arguments: Any) -> Any:
    """Return the arguments with detached parameters."""
    kind = type(arguments)
    if kind in PLAIN or (kind is tuple and PLAIN.issuperset(map(type, arguments))):
        return arguments
    return arguments.detach() if kind is nn.Parameter else map_nested(_detach_parameter, arguments)


def _detach_parameter(argument: Any) -> Any:
    return argument.detach() if type(argument) not in PLAIN and isinstance(argument, nn.Parameter) else argument


def detach_tensor(argument: Any) -> Any:
    """Return a detached tensor, or any other argument unchanged."""
    return argument.detach() if isinstance(argument, Tensor) else argument


def map_nested(function: Callable[[Any], Any], arguments: Any) -> Any:
    """Apply a function to each leaf of nested lists, tuples and dictionaries."""
    kind = type(arguments)
    if kind is list or kind is tuple:
        return kind([map_nested(function, argument) for argument in arguments])
    if kind is dict:
        return {name: map_nested(function, argument) for name, argument in arguments.items()}
    return function(arguments)
