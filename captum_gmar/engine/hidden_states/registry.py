"""LibraGrad's rules for functions and modules, and their registration."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from captum_gmar.engine.hidden_states import functions
from captum_gmar.engine.hooks.attention_mode import check_no_dropout
from captum_gmar.engine.hooks.constants import detach_tensor, map_nested


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Names have no underscores, so they cover operators and in-place functions.
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
# Products with a summand: its position and name.
AFFINE: dict[str, tuple[int, str]] = {
    **dict.fromkeys(("linear", "conv1d", "conv2d", "conv3d"), (2, "bias")),
    **dict.fromkeys(("addmm", "baddbmm"), (0, "input")),
}
# Queries of tensors, and functions whose results do not depend on the numbers.
IGNORED = _words(
    "backward data_ptr delete dim empty_like element_size full_like get_device grad is_complex is_contiguous "
    "is_floating_point is_nonzero len ndimension new_empty new_full new_ones new_tensor new_zeros numel ones_like "
    "rand_like randn_like register_hook register_post_accumulate_grad_hook requires_grad retain_grad set size stride "
    "untyped_storage zeros_like"
)

# Linear layers of quantised weights, and autograd functions of tensor parallel layers, by package.
LINEAR_CLASSES = {
    "bitsandbytes": _words("Linear4bit Linear8bitLt"),
    "hqq": _words("HQQLinear"),
    "torch": _words("_FromTorchTensor _ToTorchTensor"),
}

BalanceRule = str | Callable[..., Any]
_registered: dict[Any, BalanceRule] = {}


def register_rule(kind: Any, rule: BalanceRule) -> None:
    """Register LibraGrad's rule for a module or function that it does not know.

    Args:
        kind: A class of modules, an overridable function of torch such as ``torch.nn.functional.elu``, or a
            ``torch.autograd.Function``.
        rule: One of

            - "linear": the gradient is unchanged, for example of an average over tokens;
            - "gate": an element-wise function x · gate(x) with a constant gate, for example an activation;
            - a callable that takes the module or function and its arguments. It computes the same result by torch's
              functions, with ``detach()`` on constant parts. Not for a ``torch.autograd.Function``.

    Raises:
        TypeError: if ``kind`` is neither a class nor a function.
        ValueError: if ``rule`` is none of these.

    Example::

        >>> import torch
        >>> from captum_gmar import register_rule
        >>> class Softsign(torch.nn.Module):
        ...     def forward(self, x):
        ...         return x / (1 + x.abs())
        >>> register_rule(Softsign, lambda module, x: x / (1 + x.abs()).detach())
    """
    if not callable(kind):
        raise TypeError(f"kind must be a class of modules or a function, but got {kind!r}.")
    is_function = isinstance(kind, type) and issubclass(kind, torch.autograd.Function)
    if rule != "linear" and (is_function or (rule != "gate" and not callable(rule))):
        choices = "'linear'" if is_function else "'linear', 'gate' or a callable"
        raise ValueError(f"rule must be {choices}, but got {rule!r}.")
    _registered[kind] = rule


def registered_rule(kind: Any) -> BalanceRule | None:
    """Return the rule of a function, or of a class or its nearest base."""
    if not isinstance(kind, type):
        return _registered.get(kind)
    known = next((_registered[parent] for parent in kind.__mro__ if parent in _registered), None)
    return "linear" if known is None and any(map(_is_linear, kind.__mro__)) else known


def _is_linear(kind: type) -> bool:
    return kind.__name__ in LINEAR_CLASSES.get(kind.__module__.partition(".")[0], ())


def apply_rule(
    rule: BalanceRule, kind: Any, run: Callable[[], Any], args: Sequence[Any], kwargs: Mapping[str, Any]
) -> Any:
    """Apply a registered rule to a module or function; ``run`` returns its own result."""
    if callable(rule):
        return rule(kind, *args, **kwargs)
    if rule == "linear":
        return run()
    (input, *_) = (*args, *kwargs.values())
    return functions.hold_ratio(input, run())


def constant(func: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    """Run a function without gradient."""
    return func(*map_nested(detach_tensor, args), **map_nested(detach_tensor, kwargs))


def is_path(argument: Any) -> bool:
    """Return whether the argument is a tensor that requires grad."""
    return isinstance(argument, Tensor) and argument.requires_grad


def _replace_by(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda func, args, kwargs: function(*args, **kwargs)


def _power(func: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    """Run an integral power as a product of paths; other powers are factors."""
    base, exponent = (*args, *kwargs.values())[:2]
    is_integral = isinstance(exponent, int | float) and exponent >= 1 and exponent == int(exponent)
    if not is_path(base) or not is_integral:
        return constant(func, args, kwargs)
    return torch.pow(functions.scale_gradient(base, 1 / exponent), exponent)


def _division(func: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    """Run a division with a constant denominator."""
    return func(args[0], *map_nested(detach_tensor, args[1:]), **map_nested(detach_tensor, kwargs))


def _dropout(func: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    check_no_dropout(*args, **kwargs)
    return func(*args, **kwargs)


def _batch_norm(func: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    """Run batch norm, which is linear with running statistics and unknown with the batch's."""
    uses_batch = args[5] if len(args) > 5 else kwargs.get("training", False)
    return constant(func, args, kwargs) if uses_batch else func(*args, **kwargs)


# Each rule takes a function and its arguments, some of which are paths.
RULES: dict[str, Callable[[Callable[..., Any], Sequence[Any], dict[str, Any]], Any]] = {
    "layer_norm": _replace_by(functions.layer_norm),
    "rms_norm": _replace_by(functions.rms_norm),
    "group_norm": _replace_by(functions.group_norm),
    "batch_norm": _batch_norm,
    "normalize": _replace_by(functions.normalize),
    "gelu": _replace_by(functions.gelu),
    "silu": _replace_by(functions.silu),
    "mish": _replace_by(functions.mish),
    "hardswish": _replace_by(functions.hardswish),
    "glu": _replace_by(functions.glu),
    "pow": _power,
    "square": lambda func, args, kwargs: _power(torch.pow, (args[0], 2), {}),
    "dropout": _dropout,
    **dict.fromkeys(_words("div divide truediv itruediv true_divide"), _division),
}
