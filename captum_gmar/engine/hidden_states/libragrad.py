r"""LibraGrad: a backward pass with complete gradients; the forward pass computes the model's own results.

With constant gates, denominators and attention weights, a transformer is a linear function of its tokens and biases. At
every layer, tokens and biases times their gradients then sum to the logit. LibraGrad has four rules:

- attention weights are constant, so relevance propagates through values;
- denominators of norms are constant: LayerNorm subtracts the mean and divides by a constant standard deviation;
- gates are constant: GELU is x · Φ(x), SiLU x · σ(x);
- each factor of a product of two image-dependent tensors, as in SwiGLU, gets half of the gradient.

A function mode applies the rules to the functions that the unchanged model calls in this thread. A tensor that depends
on the image is a *path*, with a gradient, or a *factor*, which is constant. Linear functions of paths are paths. All
other functions of paths (softmax, sigmoid, square root, unknown functions) are factors. Paths may be multiplied and
divided by factors. Adding a factor to a path, or explaining a factor, would silently lose its gradient and raises an
error; :func:`captum_gmar.register_rule` adds a rule for it.

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

from captum_gmar.engine.checks import cut_gradient_error
from captum_gmar.engine.hidden_states import functions
from captum_gmar.engine.hidden_states.registry import (
    AFFINE,
    IGNORED,
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
    """Function and module that computed a factor."""

    function: str
    module: nn.Module | None


@contextmanager
def libra_gradients(model: nn.Module, keeps_parameters: bool = False) -> Iterator["LibraGradPass"]:
    """Give the model's results LibraGrad's gradients within the block, in this thread.

    Gradients may be computed within the block or after it. Parameters are constant, unless ``keeps_parameters`` is set
    for parameters that are added to tokens (biases, positions, prefix tokens); freeze the others.
    """
    _check_interceptable(model)
    libra_pass = LibraGradPass(model, keeps_parameters)

    @limit_to_thread
    def enter(module: nn.Module, args: Any) -> None:
        libra_pass.rule_depth += 1

    leave = limit_to_thread(libra_pass.leave)
    with libra_pass, ExitStack() as stack:
        for module in model.modules():
            if registered_rule(type(module)) is not None:
                stack.enter_context(module.register_forward_pre_hook(enter))
                stack.enter_context(module.register_forward_hook(leave, with_kwargs=True))
        yield libra_pass


class LibraGradPass(AttentionMode):
    """Function mode of :func:`libra_gradients`."""

    def __init__(self, model: nn.Module, keeps_parameters: bool) -> None:
        super().__init__()
        self.model = model
        self.keeps_parameters = keeps_parameters
        self.rule_depth = 0  # nesting depth of running modules with a rule
        self._is_in_module = False  # an nn.MultiheadAttention runs
        self._origins: WeakIdKeyDictionary = WeakIdKeyDictionary()  # a factor's origin; None for a path
        self._first = _sequence_number(torch.zeros((), requires_grad=True).clone())  # autograd step
        self._unknown_steps: list[Any] = []  # autograd steps of functions that the mode did not intercept

    def check(self, explained: Tensor) -> None:
        """Raise a RuntimeError if the explained output is a factor, which has no gradient."""
        _, factors = self._parts(explained)
        if factors:
            raise self._unknown_rule_error(self._origins[explained], "it is what is to be explained")

    def check_steps(self) -> None:
        """Raise a RuntimeError if a function was not intercepted; call this last."""
        if self._unknown_steps:
            step = self._unknown_steps[0]
            kind = getattr(step, "_forward_cls", None)
            name = step.name() if kind is None else kind.__name__
            raise RuntimeError(
                f"LibraGrad needs a rule for {name}, but has none, as for a torch.autograd.Function or compiled code. "
                f"Call {REGISTER}({name}, 'linear') for a linear Function, register a rule for the class of the module "
                "that calls it, or pass the model as it was before it was compiled."
            )

    def leave(self, module: nn.Module, args: Any, kwargs: Any, output: Any) -> Any:
        """Apply a module's registered rule to its output."""
        rule = registered_rule(type(module))
        if rule is not None:
            output = apply_rule(rule, module, lambda: output, args, kwargs)
        self.rule_depth -= 1
        self._record(output, *self._parts((args, kwargs)), "forward")
        return output

    def attend(self, call: AttentionCall) -> Tensor:
        """Run attention with constant weights; only values have gradients."""
        if self.rule_depth:
            return call.run()
        paths, factors = ([], []) if self._is_in_module else self._parts(call[:3])
        output = AttentionCall(*map(detach_tensor, call))._replace(value=call.value).run()
        self._record(output, paths, factors, "scaled_dot_product_attention")
        return output

    def attend_in_module(self, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor | None]:
        """Run torch's attention module, whose other operations are linear."""
        args, kwargs = self._detach_constants(args, kwargs)
        paths, factors = ([], []) if self.rule_depth else self._parts((args, kwargs))
        self._is_in_module = True  # only attention is intercepted in the module
        try:
            output, weights = super().attend_in_module(*args, **kwargs)
        finally:
            self._is_in_module = False
        self._record(output, paths, factors, "multi_head_attention_forward")
        return output, weights

    def run(self, func: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """Run any other function by its rule; the result of an unknown function is a factor."""
        if getattr(func, "__name__", "") == "__get__":
            return self._read_property(func, args)
        name = getattr(func, "__name__", "").strip("_")  # one of torch.add, Tensor.add_ and Tensor.__add__
        if name in IGNORED:
            return func(*args, **kwargs)
        if name == "iter":
            return iter(self.run(torch.unbind, args, kwargs))
        args, kwargs = self._detach_constants(args, kwargs)
        paths, factors = ([], []) if self.rule_depth else self._parts((args, kwargs))
        result = self._apply(func, name, args, kwargs, factors) if paths else func(*args, **kwargs)
        self._record(args[0] if name == "setitem" else result, paths, factors, name)
        return result

    def _detach_constants(self, args: Sequence[Any], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        if self.keeps_parameters or not torch.is_grad_enabled():
            return tuple(args), kwargs
        return detach_parameters(tuple(args)), detach_parameters(kwargs)

    def _read_property(self, func: Callable[..., Any], args: Sequence[Any]) -> Any:
        result, name = func(*args), str(func.__self__.__name__)  # type: ignore[attr-defined]
        if not isinstance(result, Tensor) or self.rule_depth or name == "grad":
            return result
        if isinstance(args[0], nn.Parameter) and not self.keeps_parameters:
            return result.detach()
        self._record(result, *self._parts(args), name)
        return result

    def _apply(
        self,
        func: Callable[..., Any],
        name: str,
        args: Sequence[Any],
        kwargs: dict[str, Any],
        factors: Sequence[Tensor],
    ) -> Any:
        """Run a function of paths by its rule."""
        rule = registered_rule(func)
        if rule is not None:
            return apply_rule(rule, func, lambda: func(*args, **kwargs), args, kwargs)
        if name in LINEAR:
            self._check_no_factors(factors, name)
            return func(*args, **kwargs)
        if name in PRODUCTS or name in AFFINE:
            return self._multiply(func, name, args, kwargs)
        if func.__name__ == f"{name}_" and is_path(args[0]):
            raise RuntimeError(
                f"LibraGrad needs a rule for {func.__name__}, but has none: {self._caller()} changes a tensor in "
                f"place. Call {name}, which returns a new tensor."
            )
        return RULES.get(name, constant)(func, args, kwargs)

    def _multiply(self, func: Callable[..., Any], name: str, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """Run a product and divide the gradient equally among its paths."""
        arguments: dict[Any, Any] = {**dict(enumerate(args)), **kwargs}  # by position or name
        summands = [arguments[key] for key in AFFINE.get(name, ()) if key in arguments]
        operands = {key: value for key, value in arguments.items() if key not in AFFINE.get(name, ())}
        paths, factors = self._parts(operands)
        summand_paths, summand_factors = self._parts(summands)
        self._check_no_factors(factors if summand_paths and not paths else summand_factors if paths else [], name)
        shares = len(paths)
        if shares < 2:
            return func(*args, **kwargs)
        if func.__name__ == f"{name}_":
            raise RuntimeError(
                f"LibraGrad needs new tensors to share out, but {self._caller()} changes one in place by "
                f"{func.__name__}. Call {name}, which returns a new tensor."
            )

        def share(argument: Any) -> Any:
            return functions.scale_gradient(argument, 1 / shares) if is_path(argument) else argument

        arguments |= map_nested(share, operands)
        return func(*(arguments[index] for index in range(len(args))), **{key: arguments[key] for key in kwargs})

    def _parts(self, arguments: Any) -> tuple[list[Tensor], list[Tensor]]:
        """Return the paths and the factors among the arguments."""
        paths, factors = [], []
        for tensor in _tensors(arguments):
            if isinstance(tensor, nn.Parameter) and not self.keeps_parameters:
                continue  # weights are loaded without gradient
            if tensor.requires_grad:
                self._check_source(tensor)
                paths.append(tensor)
            elif tensor in self._origins:
                factors.append(tensor)
        return paths, factors

    def _check_source(self, path: Tensor) -> None:
        """Record a path's autograd step if it is within the block, not intercepted and without a rule."""
        step, origins = path.grad_fn, self._origins
        if step is None or _sequence_number(path) < self._first or (path in origins and origins[path] is None):
            return
        if registered_rule(getattr(step, "_forward_cls", None)) is None:
            self._unknown_steps.append(step)

    def _record(self, result: Any, paths: Sequence[Tensor], factors: Sequence[Tensor], name: str) -> None:
        origin = None
        for tensor in _tensors(result) if paths or factors else ():
            if tensor.requires_grad:
                self._origins[tensor] = None
            elif tensor not in self._origins:
                first = self._origins[factors[0]] if factors and not paths else None
                origin = origin or first or Origin(name, _calling_module())
                self._origins[tensor] = origin

    def _check_no_factors(self, factors: Sequence[Tensor], name: str) -> None:
        if factors:
            raise self._unknown_rule_error(
                self._origins[factors[0]], f"{self._caller()} puts it beside others by {name}"
            )

    def _unknown_rule_error(self, origin: Origin, use: str) -> RuntimeError:
        if type(origin.module).__module__.startswith("torch.ao.nn."):
            return cut_gradient_error(self._module_text(origin.module))
        kind = "CLASS" if origin.module is None else type(origin.module).__name__
        return RuntimeError(
            f"LibraGrad needs a rule for {origin.function} in {self._module_text(origin.module)}, but has none, and "
            f"{use}. Call {REGISTER}({kind}, rule), where the rule is 'linear', 'gate' for an activation x * gate(x), "
            "or a callable with detach() on what is constant."
        )

    def _caller(self) -> str:
        return self._module_text(_calling_module())

    def _module_text(self, module: nn.Module | None) -> str:
        """Return a module's class and name."""
        if module is None:
            return "the function that runs the model"
        name = next((name for name, other in self.model.named_modules() if other is module), "")
        return f"{type(module).__name__} {name!r}" if name else type(module).__name__


def _check_interceptable(model: nn.Module) -> None:
    check_no_checkpointing(model)
    if any(isinstance(module, TRACED) for module in model.modules()):
        raise RuntimeError(
            f"LibraGrad needs a model whose calls it can intercept, but {type(model).__name__} is traced or exported. "
            "Pass the model as it was before."
        )


def _sequence_number(path: Tensor) -> int:
    """Return the number of a path's autograd step in this thread."""
    assert path.grad_fn is not None
    return int(path.grad_fn._sequence_nr())


def _tensors(arguments: Any) -> Iterator[Tensor]:
    """Yield the tensors of real or complex numbers among the arguments."""
    if isinstance(arguments, Tensor):
        if arguments.is_floating_point() or arguments.is_complex():
            yield arguments
    elif isinstance(arguments, list | tuple):
        for argument in arguments:
            yield from _tensors(argument)
    elif isinstance(arguments, dict):
        yield from _tensors(list(arguments.values()))


def _calling_module() -> nn.Module | None:
    """Return the module whose ``forward`` runs."""
    frame = sys._getframe(1)
    while frame is not None:
        module = frame.f_locals.get("self")
        if isinstance(module, nn.Module):
            return module
        frame = frame.f_back  # type: ignore[assignment]
    return None
