"""Work in a process of its own, so that what one leaves behind, or breaks, is nothing to the next."""

import multiprocessing
import re
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

# A server that has imported much and computed nothing splits off each process: none waits for imports.
_METHOD = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
_CONTEXT = multiprocessing.get_context(_METHOD)
_CONTEXT.set_forkserver_preload(["benchmarks.rows"])

_PATH = re.compile(r" \(/[^)]*\)")  # where an import failed


def isolated(work: Callable[..., Any], *args: object) -> Any:
    """Return ``work(*args)`` of a new process, or raise what it raises; BrokenProcessPool if the process is killed."""
    with ProcessPoolExecutor(1, _CONTEXT, _end_first) as executor:
        return executor.submit(work, *args).result()


def _end_first() -> None:
    """Let this process be ended, and no other, where memory runs out."""
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


def failure(error: BaseException) -> str:
    """Return why it could not be measured, in a line."""
    text = _PATH.sub("", " ".join(str(error).split()))
    return f"{type(error).__name__}: {text[:200]}" if text else type(error).__name__
