"""Arguments of functions and layers as constants, so that nothing is kept for gradients that nobody wants."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

# Kinds of arguments that are no parameters, as most are: told without torch's own question, which is slow.
PLAIN = frozenset({Tensor, int, float, bool, str, type(None), torch.Size, torch.dtype, torch.device})


def without_parameters(arguments: Any) -> Any:
    """The same arguments, with the parameters among them as constants."""
    kind = type(arguments)
    if kind in PLAIN or (kind is tuple and PLAIN.issuperset(map(type, arguments))):
        return arguments
    return arguments.detach() if kind is nn.Parameter else mapped(_without_parameter, arguments)


def _without_parameter(argument: Any) -> Any:
    return argument.detach() if type(argument) not in PLAIN and isinstance(argument, nn.Parameter) else argument


def without_gradient(argument: Any) -> Any:
    """A tensor as a constant; anything else as it is."""
    return argument.detach() if isinstance(argument, Tensor) else argument


def mapped(function: Callable[[Any], Any], arguments: Any) -> Any:
    """The same arguments, with the function of each that is no list, tuple or dictionary."""
    kind = type(arguments)
    if kind is list or kind is tuple:
        return kind([mapped(function, argument) for argument in arguments])
    if kind is dict:
        return {name: mapped(function, argument) for name, argument in arguments.items()}
    return function(arguments)
