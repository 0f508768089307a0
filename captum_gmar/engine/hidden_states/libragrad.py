r"""A balanced backward pass: within the block, what the model computes is the same, and gradients are complete.

Where all that gates, scales or weighs is held constant, a transformer is a linear function of its tokens and biases:
at every layer, tokens times gradient and the biases times theirs sum to the logit. LibraGrad's four rules:

- attention weights are constant: relevance goes through the values;
- the denominators of norms are constant: LayerNorm's mean is taken off, its standard deviation divides;
- gates are constant: GELU is x · Φ(x), SiLU x · σ(x);
- of a product of two that both depend on the image, as in SwiGLU, each gets half.

They are met at the functions that a model calls, of an unchanged model, in this thread; nothing is left behind. What
depends on the image is a *path*, with a gradient, or a *factor*, held constant. Linear functions of paths are paths.
Whatever else is made of paths (softmax, sigmoid, square root, and any function that is not known) is a factor. Paths
may be multiplied and divided by factors. A factor that is added to a path, or that is the result, would be lost to the
gradient in silence, so that is an error, and :func:`captum_gmar.register_rule` the way round it.

Mehri et al., "LibraGrad: Balancing Gradient Flow for Universally Better Vision Transformer Attributions", CVPR 2025,
https://arxiv.org/abs/2411.16760.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.weak import WeakIdKeyDictionary

from captum_gmar.engine.hidden_states import functions
from captum_gmar.engine.hidden_states.registry import (
    AFFINE,
    ASIDE,
    LINEAR,
    PRODUCTS,
    RULES,
    apply_rule,
    constant,
    is_path,
    registered_rule,
)
from captum_gmar.engine.hooks.attention_mode import AttentionCall, AttentionMode
from captum_gmar.engine.hooks.constants import detach_parameters, detach_tensor, map_nested
from captum_gmar.engine.hooks.threads import limit_to_thread
from captum_gmar.engine.models.patch_grid import TRACED, check_no_checkpointing

REGISTER = "captum_gmar.register_rule"


class Origin(NamedTuple):
    """Where a factor came about."""

    function: str
    module: nn.Module | None


@contextmanager
def balanced(model: nn.Module, keeps_parameters: bool = False) -> Iterator["BalancedPass"]:
    """Within the block, in this thread, what ``model`` computes of tensors that require grad has a balanced gradient.

    The gradient may be taken within the block or after it. Parameters are constants.

    Args:
        model: whatever runs; asked for modules that a rule was registered for, and for names.
        keeps_parameters: whether parameters that require grad get their part. It is for those that are added to the
            tokens (biases, positions, prefix tokens), with the others frozen.
    """
    _check_balanceable(model)
    balancing = BalancedPass(model, keeps_parameters)

    @limit_to_thread
    def enter(module: nn.Module, args: Any) -> None:
        balancing.aside += 1

    leave = limit_to_thread(balancing.leave)
    with balancing, ExitStack() as stack:
        for module in model.modules():
            if registered_rule(type(module)) is not None:
                stack.enter_context(module.register_forward_pre_hook(enter))
                stack.enter_context(module.register_forward_hook(leave, with_kwargs=True))
        yield balancing


class BalancedPass(AttentionMode):
    """What is within the block of :func:`balanced`."""

    def __init__(self, model: nn.Module, keeps_parameters: bool) -> None:
        super().__init__()
        self.model = model
        self.keeps_parameters = keeps_parameters
        self.aside = 0  # how many modules with a rule are under way, each in the other
        self._in_module = False  # whether an nn.MultiheadAttention is under way
        self._met: WeakIdKeyDictionary = WeakIdKeyDictionary()  # of a factor its origin, of a path None
        self._first = _sequence_number(torch.zeros((), requires_grad=True).clone())  # of autograd's steps
        self._unmet: list[Any] = []  # the steps that were not met, of which something was

    def check(self, explained: Tensor) -> None:
        """
        Raises:
            RuntimeError: if what is explained is a factor, so that there is no gradient.
        """
        _, factors = self._parts(explained)
        if factors:
            raise self._unbalanced(self._met[explained], "it is what is to be explained")

    def check_all_met(self) -> None:
        """
        Raises:
            RuntimeError: if anything was computed by what is not met here. To be asked at the end.
        """
        if self._unmet:
            step = self._unmet[0]
            kind = getattr(step, "_forward_cls", None)
            name = step.name() if kind is None else kind.__name__
            raise RuntimeError(
                f"The balanced backward pass cannot meet {name}: a torch.autograd.Function, or code that is compiled "
                f"or traced. Of a Function that is linear, say so: {REGISTER}({name}, 'linear'). Else register a rule "
                "for the class of the module that calls it, or pass the model as it was before it was compiled."
            )

    def leave(self, module: nn.Module, args: Any, kwargs: Any, output: Any) -> Any:
        """What comes out of a module with a rule."""
        rule = registered_rule(type(module))
        if rule is not None:
            output = apply_rule(rule, module, lambda: output, args, kwargs)
        self.aside -= 1
        self._note(output, *self._parts((args, kwargs)), "forward")
        return output

    def attend(self, call: AttentionCall) -> Tensor:
        """Attention whose weights are constant: a gradient goes through the values alone."""
        if self.aside:
            return call.run()
        paths, factors = ([], []) if self._in_module else self._parts(call[:3])
        attended = AttentionCall(*map(detach_tensor, call))._replace(value=call.value).run()
        self._note(attended, paths, factors, "scaled_dot_product_attention")
        return attended

    def attend_in_module(self, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor | None]:
        """The same inside torch's module, whose other steps are linear."""
        args, kwargs = self._constants(args, kwargs)
        paths, factors = ([], []) if self.aside else self._parts((args, kwargs))
        self._in_module = True  # of which nothing but attention is met
        try:
            output, weights = super().attend_in_module(*args, **kwargs)
        finally:
            self._in_module = False
        self._note(output, paths, factors, "multi_head_attention_forward")
        return output, weights

    def run(self, func: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """Any other function, by the rule that is known of it; what comes of an unknown one makes a factor."""
        if getattr(func, "__name__", "") == "__get__":
            return self._read_property(func, args)
        name = _function_name(func)
        if name in ASIDE:
            return func(*args, **kwargs)
        if name == "iter":
            return iter(self.run(torch.unbind, args, kwargs))
        args, kwargs = self._constants(args, kwargs)
        paths, factors = ([], []) if self.aside else self._parts((args, kwargs))
        result = self._balance(func, name, args, kwargs, factors) if paths else func(*args, **kwargs)
        self._note(args[0] if name == "setitem" else result, paths, factors, name)
        return result

    def _constants(self, args: Sequence[Any], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        if self.keeps_parameters or not torch.is_grad_enabled():
            return tuple(args), kwargs
        return detach_parameters(tuple(args)), detach_parameters(kwargs)

    def _read_property(self, func: Callable[..., Any], args: Sequence[Any]) -> Any:
        result, name = func(*args), str(func.__self__.__name__)  # type: ignore[attr-defined]
        if not isinstance(result, Tensor) or self.aside or name == "grad":
            return result
        if isinstance(args[0], nn.Parameter) and not self.keeps_parameters:
            return result.detach()
        self._note(result, *self._parts(args), name)
        return result

    def _balance(
        self,
        func: Callable[..., Any],
        name: str,
        args: Sequence[Any],
        kwargs: dict[str, Any],
        factors: Sequence[Tensor],
    ) -> Any:
        """Of arguments some of which are paths."""
        rule = registered_rule(func)
        if rule is not None:
            return apply_rule(rule, func, lambda: func(*args, **kwargs), args, kwargs)
        if name in LINEAR:
            self._check_all_paths(factors, name)
            return func(*args, **kwargs)
        if name in PRODUCTS or name in AFFINE:
            return self._multiply(func, name, args, kwargs)
        if func.__name__ == f"{name}_" and is_path(args[0]):
            raise RuntimeError(
                f"The balanced backward pass does not know {func.__name__}, by which {self._here()} changes a tensor "
                f"in place. Let it call {name}, which returns a new tensor."
            )
        return RULES.get(name, constant)(func, args, kwargs)

    def _multiply(self, func: Callable[..., Any], name: str, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """Each of several paths that are multiplied gets its part."""
        given: dict[Any, Any] = {**dict(enumerate(args)), **kwargs}  # by place or name
        added = [given[key] for key in AFFINE.get(name, ()) if key in given]
        multiplied = {key: value for key, value in given.items() if key not in AFFINE.get(name, ())}
        paths, factors = self._parts(multiplied)
        paths_added, factors_added = self._parts(added)
        self._check_all_paths(factors if paths_added and not paths else factors_added if paths else [], name)
        shares = len(paths)
        if shares < 2:
            return func(*args, **kwargs)
        if func.__name__ == f"{name}_":
            raise RuntimeError(
                f"The balanced backward pass cannot share out {func.__name__}, by which {self._here()} changes a "
                f"tensor in place. Let it call {name}, which returns a new tensor."
            )

        def share(argument: Any) -> Any:
            return functions.scaled_gradient(argument, 1 / shares) if is_path(argument) else argument

        given |= map_nested(share, multiplied)
        return func(*(given[place] for place in range(len(args))), **{key: given[key] for key in kwargs})

    def _parts(self, arguments: Any) -> tuple[list[Tensor], list[Tensor]]:
        """The paths and the factors among the arguments."""
        paths, factors = [], []
        for tensor in _tensors(arguments):
            if isinstance(tensor, nn.Parameter) and not self.keeps_parameters:
                continue  # weights are loaded without gradient
            if tensor.requires_grad:
                self._look_behind(tensor)
                paths.append(tensor)
            elif tensor in self._met:
                factors.append(tensor)
        return paths, factors

    def _look_behind(self, path: Tensor) -> None:
        """Notes what made it if that was not met: nothing but what came before, and rules that say so."""
        step = path.grad_fn
        if step is None or _sequence_number(path) < self._first or (path in self._met and self._met[path] is None):
            return
        if registered_rule(getattr(step, "_forward_cls", None)) is None:
            self._unmet.append(step)

    def _note(self, result: Any, paths: Sequence[Tensor], factors: Sequence[Tensor], name: str) -> None:
        """Notes what was made of paths or factors."""
        origin = None
        for tensor in _tensors(result) if paths or factors else ():
            if tensor.requires_grad:
                self._met[tensor] = None
            elif tensor not in self._met:
                first = self._met[factors[0]] if factors and not paths else None
                origin = origin or first or Origin(name, _calling_module())
                self._met[tensor] = origin

    def _check_all_paths(self, factors: Sequence[Tensor], name: str) -> None:
        if factors:
            raise self._unbalanced(self._met[factors[0]], f"{self._here()} puts it beside others by {name}")

    def _unbalanced(self, origin: Origin, use: str) -> RuntimeError:
        kind = "CLASS" if origin.module is None else type(origin.module).__name__
        return RuntimeError(
            f"The balanced backward pass does not know what {self._called(origin.module)} computes by "
            f"{origin.function}. It is taken as constant, as what multiplies or divides others may be, but {use}. Say "
            f"how it is balanced: {REGISTER}({kind}, rule), where the rule is 'linear', 'gate' for an activation "
            "x * gate(x), or a callable with detach() on what is constant."
        )

    def _here(self) -> str:
        return self._called(_calling_module())

    def _called(self, module: nn.Module | None) -> str:
        """The module, by class and name."""
        if module is None:
            return "the function that runs the model"
        name = next((name for name, other in self.model.named_modules() if other is module), "")
        return f"{type(module).__name__} {name!r}" if name else type(module).__name__


def _check_balanceable(model: nn.Module) -> None:
    check_no_checkpointing(model)
    if any(isinstance(module, TRACED) for module in model.modules()):
        raise RuntimeError(
            f"Expected a model whose functions the balanced backward pass can meet, but {type(model).__name__} is "
            "traced or exported, which compiles their calls away. Pass the model as it was before."
        )


def _sequence_number(path: Tensor) -> int:
    """Of the step by which autograd goes back from it, in the order of this thread."""
    assert path.grad_fn is not None
    return int(path.grad_fn._sequence_nr())


def _function_name(func: Callable[..., Any]) -> str:
    """``add`` of ``torch.add``, ``Tensor.add_`` and ``Tensor.__add__``."""
    return str(getattr(func, "__name__", "")).strip("_")


def _tensors(arguments: Any) -> Iterator[Tensor]:
    """The tensors of real or complex numbers among the arguments."""
    if isinstance(arguments, Tensor):
        if arguments.is_floating_point() or arguments.is_complex():
            yield arguments
    elif isinstance(arguments, list | tuple):
        for argument in arguments:
            yield from _tensors(argument)
    elif isinstance(arguments, dict):
        yield from _tensors(list(arguments.values()))


def _calling_module() -> nn.Module | None:
    """The module whose ``forward`` is under way."""
    frame = sys._getframe(1)
    while frame is not None:
        module = frame.f_locals.get("self")
        if isinstance(module, nn.Module):
            return module
        frame = frame.f_back  # type: ignore[assignment]
    return None
