"""What is switched for a pass and back after it, for the thread of the pass alone where that can be."""

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any
from weakref import WeakKeyDictionary, ref

import torch
from torch import nn

from captum_gmar.engine.models.introspection import FUSED, Survey, surveyed

# Implementations that compute the same attention, by how their names begin. One of the user's own is left alone.
EQUIVALENT = ("sdpa", "eager", "flash_attention", "flex_attention")
NAME = "_attn_implementation"  # the property of a config by which transformers' layers look their attention up


@contextmanager
def attention_implementation(model: nn.Module | Survey, name: str) -> Iterator[None]:
    """Within the block, in this thread, the Hugging Face modules of ``model`` compute attention the way of this name.

    Their configs, which other models and threads may share, are not written to: it is what this thread reads there that
    differs. So passes of other threads, which may ask for attention weights or explain the same model, stay whole.
    timm's modules that write their attention out call torch's meanwhile, in all threads: it gives the same numbers.

    Raises:
        RuntimeError: within another such block of the same thread that wants another implementation, as what that one
            meets would not be met.
    """
    survey = surveyed(model)
    configs, before = _configs(survey), _read_here.names
    others = {before.get(key, name) for key in configs} - {name}
    if others:
        raise RuntimeError(
            f"Expected no pass with {name} attention while one with {others.pop()} attention of the same model is "
            "under way in this thread. Record attention outside of forward_func."
        )
    with ExitStack() as stack:
        if name == "sdpa" and any(True for _ in survey.values(FUSED)):
            stack.enter_context(_fused_by(survey.model).during_pass())
        for kind in filter(None, {_defining(type(config)) for config in configs.values()}):
            stack.enter_context(_read_by_thread(kind).during_pass())
        _read_here.names = {**before, **dict.fromkeys(configs, name)}
        try:
            yield
        finally:
            _read_here.names = before


@contextmanager
def uncompiled() -> Iterator[None]:
    """Within the block, compiled code runs as it was written: compilation hides its attention. That is so for all
    threads, as torch has it."""
    if "torch._dynamo" not in sys.modules:  # nothing can have been compiled
        yield
        return
    with _forced_eager.during_pass():
        yield


class _Shared:
    """A switch for all threads: the first pass that wants it switches, and the last to leave switches back."""

    def __init__(self, switched: Callable[[], AbstractContextManager[Any]]) -> None:
        self.switched = switched
        self.stack = ExitStack()
        self.passes = 0
        self.lock = threading.Lock()

    @contextmanager
    def during_pass(self) -> Iterator[None]:
        """Within the block, it is switched."""
        with self.lock:
            if not self.passes:
                self.stack.enter_context(self.switched())
            self.passes += 1
        try:
            yield
        finally:
            with self.lock:
                self.passes -= 1
                if not self.passes:
                    self.stack.close()


_fused_by_models: "WeakKeyDictionary[nn.Module, _Shared]" = WeakKeyDictionary()
_fused_by_models_lock = threading.Lock()


def _fused_by(model: nn.Module) -> _Shared:
    """timm's attention in this model is fused."""
    reference = ref(model)
    with _fused_by_models_lock:
        return _fused_by_models.setdefault(model, _Shared(lambda: _fused(reference())))


@contextmanager
def _fused(model: nn.Module | None) -> Iterator[None]:
    modules = [] if model is None else [module for module in model.modules() if vars(module).get(FUSED) is False]
    for module in modules:
        setattr(module, FUSED, True)
    try:
        yield
    finally:
        for module in modules:
            setattr(module, FUSED, False)


_forced_eager = _Shared(lambda: torch.compiler.set_stance("force_eager"))


class _ReadHere(threading.local):
    """What this thread reads, by the id of a config."""

    def __init__(self) -> None:
        self.names: dict[int, str] = {}


_read_here = _ReadHere()
_read_by_threads: dict[type, _Shared] = {}
_read_by_threads_lock = threading.Lock()


def _read_by_thread(kind: type) -> _Shared:
    """Configs of this class give each thread the implementation that it is to read."""
    with _read_by_threads_lock:
        return _read_by_threads.setdefault(kind, _Shared(lambda: _replaced(kind)))


@contextmanager
def _replaced(kind: type) -> Iterator[None]:
    original: property = vars(kind)[NAME]

    def read(config: Any) -> Any:
        name = _read_here.names.get(id(config))
        return original.__get__(config) if name is None else name

    setattr(kind, NAME, property(read, original.fset, original.fdel, original.__doc__))
    try:
        yield
    finally:
        setattr(kind, NAME, original)


def _defining(kind: type) -> type | None:
    """The class that the property is of."""
    return next((base for base in kind.__mro__ if isinstance(vars(base).get(NAME), property)), None)


def _configs(survey: Survey) -> dict[int, Any]:
    """The configs of the model's modules that name an attention implementation, by their id."""
    configs = {id(config): config for config in survey.values("config")}
    return {
        key: config
        for key, config in configs.items()
        if _defining(type(config)) and str(getattr(config, NAME)).startswith(EQUIVALENT)
    }
