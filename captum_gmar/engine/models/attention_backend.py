"""Temporary switches of attention implementations and compilation, limited to one thread if possible."""

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any
from weakref import WeakKeyDictionary, ref

import torch
from torch import nn

from captum_gmar.engine.models.introspection import PASS_VALUES, ModelInfo, inspect_model

# Name prefixes of implementations that compute the same attention. A user's own implementation is not changed.
EQUIVALENT = ("sdpa", "eager", "flash_attention", "flex_attention")
NAME = "_attn_implementation"  # the config property from which transformers' layers choose their attention


@contextmanager
def attention_implementation(model: nn.Module | ModelInfo, name: str) -> Iterator[None]:
    """Switch the Hugging Face modules of ``model`` to an attention implementation, in this thread.

    Other models and threads may share configs, so these do not change: only the value that this thread reads differs.
    timm's modules call torch's attention in all threads, which returns the same numbers. A block within another one of
    the same thread with another implementation raises RuntimeError.
    """
    info = inspect_model(model)
    configs, outer_names = _configs(info), _thread_names.names
    conflicts = {outer_names.get(key, name) for key in configs} - {name}
    if conflicts:
        raise RuntimeError(
            f"{name} attention cannot be combined with {conflicts.pop()} attention of the same model in one thread. "
            "Record attention outside of forward_func."
        )
    with ExitStack() as stack:
        if name == "sdpa" and any(True for _ in info.each(*PASS_VALUES)):
            stack.enter_context(_shared_switch(info.model, _set_pass_values).during_pass())
        for kind in filter(None, {_property_owner(type(config)) for config in configs.values()}):
            stack.enter_context(_shared_switch(kind, _replace_property).during_pass())
        _thread_names.names = {**outer_names, **dict.fromkeys(configs, name)}
        try:
            yield
        finally:
            _thread_names.names = outer_names


@contextmanager
def force_eager() -> Iterator[None]:
    """Run compiled code eagerly within the block, in all threads, since compilation hides attention calls."""
    if "torch._dynamo" not in sys.modules:  # no code is compiled yet
        yield
        return
    with _eager_switch.during_pass():
        yield


class _Switch:
    """Switch for all threads: the first pass turns it on, and the last turns it off."""

    def __init__(self, switch_on: Callable[[], AbstractContextManager[Any]]) -> None:
        self.switch_on = switch_on
        self.stack = ExitStack()
        self.passes = 0
        self.lock = threading.Lock()

    @contextmanager
    def during_pass(self) -> Iterator[None]:
        """Turn the switch on within the block."""
        with self.lock:
            if not self.passes:
                self.stack.enter_context(self.switch_on())
            self.passes += 1
        try:
            yield
        finally:
            with self.lock:
                self.passes -= 1
                if not self.passes:
                    self.stack.close()


_eager_switch = _Switch(lambda: torch.compiler.set_stance("force_eager"))
_switches: "WeakKeyDictionary[Any, _Switch]" = WeakKeyDictionary()  # of models and of classes of configs
_switches_lock = threading.Lock()


def _shared_switch(key: Any, switch_on: Callable[[Any], AbstractContextManager[Any]]) -> _Switch:
    """Return the switch of a model or class, which it references weakly."""
    reference = ref(key)
    with _switches_lock:
        return _switches.setdefault(key, _Switch(lambda: switch_on(reference())))


@contextmanager
def _set_pass_values(model: nn.Module) -> Iterator[None]:
    """Give the modules' attributes their values of a pass."""
    originals = [
        (module, name, vars(module)[name])
        for module in model.modules()
        for name, value in PASS_VALUES.items()
        if vars(module).get(name, value) != value
    ]
    for module, name, _ in originals:
        setattr(module, name, PASS_VALUES[name])
    try:
        yield
    finally:
        for module, name, value in originals:
            setattr(module, name, value)


class _ThreadNames(threading.local):
    """Names of implementations in this thread, by the id of a config."""

    def __init__(self) -> None:
        self.names: dict[int, str] = {}


_thread_names = _ThreadNames()


@contextmanager
def _replace_property(kind: type) -> Iterator[None]:
    """Make configs of a class return each thread's implementation."""
    original: property = vars(kind)[NAME]

    def read(config: Any) -> Any:
        name = _thread_names.names.get(id(config))
        return original.__get__(config) if name is None else name

    setattr(kind, NAME, property(read, original.fset, original.fdel, original.__doc__))
    try:
        yield
    finally:
        setattr(kind, NAME, original)


def _property_owner(kind: type) -> type | None:
    """Return the class that defines the property."""
    return next((base for base in kind.__mro__ if isinstance(vars(base).get(NAME), property)), None)


def _configs(info: ModelInfo) -> dict[int, Any]:
    """Return the configs that name an equivalent attention implementation, by id."""
    configs = {id(config): config for config in info.values("config")}
    return {
        key: config
        for key, config in configs.items()
        if _property_owner(type(config)) and str(getattr(config, NAME)).startswith(EQUIVALENT)
    }
