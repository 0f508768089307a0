"""Which functions are linear, products or have a rule of their own in a balanced backward pass, and how to add one."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from captum_gmar.engine.checks import check_no_dropout
from captum_gmar.engine.hidden_states import functions
from captum_gmar.engine.hooks.constants import detach_tensor, map_nested


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# By name, without the underscores of operators and of functions that work in place.
LINEAR = _words(
    "abs adaptive_avg_pool1d adaptive_avg_pool2d adaptive_max_pool1d adaptive_max_pool2d add alias amax amin "
    "as_strided avg_pool1d avg_pool2d bfloat16 broadcast_tensors broadcast_to cat chunk clone concat concatenate "
    "contiguous copy cpu cuda cumsum diagonal double embedding expand expand_as flatten flip float fold gather getitem "
    "H half hsplit hstack iadd index index_add index_select interpolate isub leaky_relu mT masked_fill masked_select "
    "max max_pool1d max_pool2d maximum mean mH min minimum moveaxis movedim narrow neg pad permute pixel_shuffle "
    "pixel_unshuffle positive radd ravel real relu repeat repeat_interleave reshape reshape_as roll rot90 rsub scatter "
    "scatter_add select setitem sort split split_with_sizes squeeze stack sub subtract sum swapaxes swapdims t T "
    "take_along_dim tensor_split tile to topk transpose tril triu type type_as unbind unflatten unfold unsqueeze "
    "upsample view view_as vsplit vstack where"
)
PRODUCTS = _words("bmm dot einsum imul inner matmul mm mul multiply mv outer prelu rmatmul rmul tensordot")
# Products of two arguments to which another is added: its place and its name.
AFFINE: dict[str, tuple[int, str]] = {
    **dict.fromkeys(("linear", "conv1d", "conv2d", "conv3d"), (2, "bias")),
    **dict.fromkeys(("addmm", "baddbmm"), (0, "input")),
}
# What asks or says something of a tensor, or makes one that does not depend on its numbers.
ASIDE = _words(
    "backward data_ptr delete dim empty_like element_size full_like get_device grad is_complex is_contiguous "
    "is_floating_point is_nonzero len ndimension new_empty new_full new_ones new_tensor new_zeros numel ones_like "
    "rand_like randn_like register_hook register_post_accumulate_grad_hook requires_grad retain_grad set size stride "
    "untyped_storage zeros_like"
)

BalanceRule = str | Callable[..., Any]
_registered: dict[Any, BalanceRule] = {}


def register_rule(kind: Any, rule: BalanceRule) -> None:
    """
    Says how the gradient of a module or function that the balanced pass does not know is balanced, from now on.

    Args:
        kind: a class of modules, a function that torch lets be overridden, such as ``torch.nn.functional.elu``, or a
            ``torch.autograd.Function``.
        rule: one of

            - "linear": its gradient is as it should be, as of an average over tokens;
            - "gate": it is x · gate(x), element by element, of which the gate is constant, as of an activation;
            - a callable that takes the module or function and its arguments and computes the same with torch's own
              functions, with ``detach()`` on whatever is constant. Not for a ``torch.autograd.Function``.

    Raises:
        TypeError: if the kind is none of these.
        ValueError: if the rule is none of these.

    Example::

        >>> import torch
        >>> from captum_gmar import register_rule
        >>> class Softsign(torch.nn.Module):
        ...     def forward(self, x):
        ...         return x / (1 + x.abs())
        >>> register_rule(Softsign, lambda module, x: x / (1 + x.abs()).detach())
    """
    if not callable(kind):
        raise TypeError(f"kind must be a class of modules or a function. Got {kind!r} instead.")
    is_function = isinstance(kind, type) and issubclass(kind, torch.autograd.Function)
    if rule != "linear" and (is_function or (rule != "gate" and not callable(rule))):
        choices = "'linear'" if is_function else "'linear', 'gate' or a callable"
        raise ValueError(f"rule must be {choices}. Got {rule!r} instead.")
    _registered[kind] = rule


def registered_rule(kind: Any) -> BalanceRule | None:
    """Of a function, or of a class or one that it inherits from."""
    parents = kind.__mro__ if isinstance(kind, type) else (kind,)
    return next((_registered[parent] for parent in parents if parent in _registered), None)


def apply_rule(
    rule: BalanceRule, of: Any, run: Callable[[], Any], args: Sequence[Any], kwargs: Mapping[str, Any]
) -> Any:
    """What a registered rule makes of a module or function and its arguments; ``run`` gives what it itself does."""
    if callable(rule):
        return rule(of, *args, **kwargs)
    if rule == "linear":
        return run()
    (input, *_) = (*args, *kwargs.values())
    return functions.in_proportion(input, run())


def constant(func: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    """What the function gives, without gradient."""
    return func(*map_nested(detach_tensor, args), **map_nested(detach_tensor, kwargs))


def is_path(argument: Any) -> bool:
    """Whether it is a tensor that a gradient goes through."""
    return isinstance(argument, Tensor) and argument.requires_grad


def _instead(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda func, args, kwargs: function(*args, **kwargs)


def _power(func: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    """A whole power is a product of paths; what any other gives is a factor."""
    base, exponent = (*args, *kwargs.values())[:2]
    is_whole = isinstance(exponent, int | float) and exponent >= 1 and exponent == int(exponent)
    if not is_path(base) or not is_whole:
        return constant(func, args, kwargs)
    return torch.pow(functions.scaled_gradient(base, 1 / exponent), exponent)


def _division(func: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    """The denominator is constant."""
    return func(args[0], *map_nested(detach_tensor, args[1:]), **map_nested(detach_tensor, kwargs))


def _dropout(func: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    check_no_dropout(*args, **kwargs)
    return func(*args, **kwargs)


def _batch_norm(func: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    """With running statistics it is linear, and with the batch's own it is not known."""
    uses_batch = args[5] if len(args) > 5 else kwargs.get("training", False)
    return constant(func, args, kwargs) if uses_batch else func(*args, **kwargs)


# Each takes the function and its arguments, of which some are paths.
RULES: dict[str, Callable[[Callable[..., Any], Sequence[Any], dict[str, Any]], Any]] = {
    "layer_norm": _instead(functions.layer_norm),
    "rms_norm": _instead(functions.rms_norm),
    "group_norm": _instead(functions.group_norm),
    "batch_norm": _batch_norm,
    "normalize": _instead(functions.normalize),
    "gelu": _instead(functions.gelu),
    "silu": _instead(functions.silu),
    "mish": _instead(functions.mish),
    "hardswish": _instead(functions.hardswish),
    "glu": _instead(functions.glu),
    "pow": _power,
    "square": lambda func, args, kwargs: _power(torch.pow, (args[0], 2), {}),
    "dropout": _dropout,
    **dict.fromkeys(_words("div divide truediv itruediv true_divide"), _division),
}
