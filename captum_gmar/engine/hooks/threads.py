"""Module hooks that are limited to one thread."""

import threading
from collections.abc import Callable
from typing import Any


def limit_to_thread(hook: Callable[..., Any]) -> Callable[..., Any]:
    """Return a hook that does nothing in threads other than the current one.

    Other threads may run the module too. There torch may call the hook without its keywords while the hook is being
    removed, as torch looks the hook up twice.
    """
    thread = threading.get_ident()

    def guarded(*call: Any) -> Any:
        return hook(*call) if threading.get_ident() == thread else None

    return guarded
