"""Module hooks that are limited to one thread."""

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import nn


def limit_to_thread(hook: Callable[..., Any]) -> Callable[..., Any]:
    """Return a hook that does nothing in threads other than the current one.

    Other threads may run the module too. There torch may call the hook without its keywords while the hook is being
    removed, as torch looks the hook up twice.
    """
    thread = threading.get_ident()

    def guarded(*call: Any) -> Any:
        return hook(*call) if threading.get_ident() == thread else None

    return guarded


@contextmanager
def hook_modules(
    modules: Iterable[nn.Module], enter: Callable[..., Any] | None = None, leave: Callable[..., Any] | None = None
) -> Iterator[None]:
    """Call ``enter(module, args, kwargs)`` before modules and ``leave(module, args, output)`` after, in this thread."""
    with ExitStack() as stack:
        for module in modules:
            if enter is not None:
                stack.enter_context(module.register_forward_pre_hook(limit_to_thread(enter), with_kwargs=True))
            if leave is not None:
                stack.enter_context(module.register_forward_hook(limit_to_thread(leave)))
        yield
