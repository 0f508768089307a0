"""Arguments of functions and layers as constants, so that nothing is kept for gradients that nobody wants."""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn


def without_parameter(argument: Any) -> Any:
    """A parameter as a constant; anything else as it is."""
    return argument.detach() if isinstance(argument, nn.Parameter) else argument


def without_gradient(argument: Any) -> Any:
    """A tensor as a constant; anything else as it is."""
    return argument.detach() if isinstance(argument, Tensor) else argument


def mapped(function: Callable[[Any], Any], arguments: Any) -> Any:
    """The same arguments, with the function of each that is no list, tuple or dictionary."""
    if type(arguments) in (list, tuple):
        return type(arguments)(mapped(function, argument) for argument in arguments)
    if type(arguments) is dict:
        return {name: mapped(function, argument) for name, argument in arguments.items()}
    return function(arguments)
