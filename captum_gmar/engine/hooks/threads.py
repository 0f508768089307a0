"""Hooks of modules that other threads run as well."""

import threading
from collections.abc import Callable
from typing import Any


def of_this_thread(hook: Callable[..., Any]) -> Callable[..., Any]:
    """The same hook, which does nothing in other threads than that of this call.

    These may run the module too, and torch calls it there without the keywords that it is registered for, where it is
    being taken away between the two times that torch looks it up.
    """
    thread = threading.get_ident()

    def guarded(*call: Any) -> Any:
        return hook(*call) if threading.get_ident() == thread else None

    return guarded
