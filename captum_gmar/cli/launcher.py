"""A command run in several processes of this machine that share its work, as torchrun would, with one exit status."""

import os
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import subprocess

_POLL_SECONDS, _GRACE_SECONDS = 0.1, 10.0


def is_launched() -> bool:
    """Whether this is one of several processes already."""
    return "WORLD_SIZE" in os.environ


def launch(processes: int, command: Sequence[str]) -> tuple[int, int]:
    """
    Runs the command in so many processes.

    Args:
        processes: how many.
        command: the arguments of ``captum-gmar``.

    Returns:
        As a command returns it: whether any image was done, and whether any was left out or something failed.

    Raises:
        KeyboardInterrupt: if the processes were interrupted.
    """
    import subprocess

    shared = {"WORLD_SIZE": str(processes), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port())}
    # Each takes its part of the cores, unless the user says otherwise: all of them together would wait for one another.
    shared |= {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS") or str(_threads(processes))}
    running = [
        subprocess.Popen(
            [sys.executable, "-m", "captum_gmar", *command],
            env={**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank in range(processes)
    ]
    try:
        first, *others = _wait(running)
    finally:
        for process in running:
            process.kill()
    status = first or max(map(abs, others))
    if status == 130:
        raise KeyboardInterrupt
    return {0: (1, 0), 1: (1, 1)}.get(status, (0, 1))


def _threads(processes: int) -> int:
    """
    >>> _threads(10**6)
    1
    """
    return max(1, (os.cpu_count() or 1) // processes)


def _wait(running: Sequence["subprocess.Popen[bytes]"]) -> list[int]:
    """Until all have ended, or one has failed and the others do not follow."""
    failed_since = None
    while any(process.poll() is None for process in running):
        if failed_since is None and any(process.returncode for process in running):
            failed_since = time.monotonic()
        if failed_since is not None and time.monotonic() - failed_since > _GRACE_SECONDS:
            for process in running:
                process.terminate()
        try:
            time.sleep(_POLL_SECONDS)
        except KeyboardInterrupt:  # which the processes get as well, and speak of it
            failed_since = time.monotonic()
    return [process.returncode for process in running]


def _free_port() -> int:
    import socket

    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port: int = listening.getsockname()[1]
        return port
