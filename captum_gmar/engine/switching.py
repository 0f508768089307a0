"""What is switched for a pass and back after it. Both switches are global, so threads share and count their use."""

import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

# Implementations that compute the same attention, by how their names begin. One of the user's own is left alone.
EQUIVALENT = ("sdpa", "eager", "flash_attention", "flex_attention")


@dataclass
class _Switched:
    config: Any
    name: str
    before: str
    threads: list[int] = field(default_factory=list)  # of the passes under way


_switched: dict[int, _Switched] = {}  # by id of the config; an entry keeps its config alive
_switched_changed = threading.Condition()


@contextmanager
def attention_implementation(model: nn.Module, name: str) -> Iterator[None]:
    """Within the block, the Hugging Face modules of ``model`` compute attention the way called ``name``.

    What is written to is the modules' config objects, which other models and threads may share: passes that want the
    same implementation run side by side, others wait, and the last to leave sets back what was there, also after an
    error.

    Raises:
        RuntimeError: within another such block of the same thread that wants another implementation.
    """
    configs, thread = _switches(model), threading.get_ident()
    with _switched_changed:
        for entry in (_switched[key] for key in configs if key in _switched):
            if entry.name != name and thread in entry.threads:  # it would wait for itself
                raise RuntimeError(
                    f"Expected no pass with {name} attention while one with {entry.name} attention of the same model "
                    "is under way in this thread. Record attention outside of forward_func."
                )
        _switched_changed.wait_for(lambda: all(_switched[key].name == name for key in configs if key in _switched))
        for key, config in configs.items():
            entry = _switched.setdefault(key, _Switched(config, name, config._attn_implementation_internal))
            entry.threads.append(thread)
            config._attn_implementation_internal = name
    try:
        yield
    finally:
        with _switched_changed:
            for key in configs:
                _switched[key].threads.remove(thread)
                if not _switched[key].threads:
                    entry = _switched.pop(key)
                    entry.config._attn_implementation_internal = entry.before
            _switched_changed.notify_all()


def _switches(model: nn.Module) -> dict[int, Any]:
    """The configs of the model's modules that name an attention implementation, by their id."""
    configs: list[Any] = [getattr(module, "config", None) for module in model.modules()]
    return {id(c): c for c in configs if str(getattr(c, "_attn_implementation_internal", None)).startswith(EQUIVALENT)}


@dataclass
class _Uncompiled:
    stack: ExitStack
    passes: int = 0


_uncompiled = _Uncompiled(ExitStack())
_uncompiled_lock = threading.Lock()


@contextmanager
def uncompiled() -> Iterator[None]:
    """Within the block, compiled code runs as it was written: compilation hides its attention."""
    if "torch._dynamo" not in sys.modules:  # nothing can have been compiled
        yield
        return
    with _uncompiled_lock:
        if not _uncompiled.passes:
            _uncompiled.stack.enter_context(torch.compiler.set_stance("force_eager"))
        _uncompiled.passes += 1
    try:
        yield
    finally:
        with _uncompiled_lock:
            _uncompiled.passes -= 1
            if not _uncompiled.passes:
                _uncompiled.stack.close()
