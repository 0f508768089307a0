"""Runs of ``captum-gmar`` in processes of their own, forked from a server that has loaded all and run nothing.

A process of its own takes seconds to load torch; the server loads it once.
"""

import multiprocessing
import os
import resource
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path

LONGEST = 120  # seconds of a run
LOADED = ["captum_gmar.evaluation.evaluate", "captum_gmar.evaluation.heads", "captum_gmar.classifier.loading"]
LOADED += ["captum_gmar.cli.sources", "captum_gmar.attr.gmar", "transformers.models.vit.modeling_vit"]


@dataclass(frozen=True)
class Ended:
    """How a run ended."""

    status: int  # below zero the signal that ended it
    seconds: float
    error: str  # what it said on stderr


def run_forked(
    words,
    folder,
    *,
    kill_after=None,
    kill_once_in=None,
    with_signal=signal.SIGKILL,
    file_size=None,
    copies=({},),
    out=os.devnull,
):
    """Run a command, once or with each of several environments at once, and return how it ended, without pictures.

    After so many seconds, or once something is written in that journal, it is sent the signal (the first copy
    alone); no file may grow beyond ``file_size`` bytes, as on a full disk; ``out`` is its standard output.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(LOADED)
    errors = [Path(folder).parent / f"stderr-{number}" for number in range(len(copies))]
    runs = [
        context.Process(target=_work, args=([*words], folder, extra, error, file_size, out))
        for extra, error in zip(copies, errors, strict=True)
    ]
    for each in runs:
        each.start()
    began, seconds = time.monotonic(), {}
    while len(seconds) < len(runs):
        passed = time.monotonic() - began
        for each in runs:
            if each not in seconds and each.exitcode is not None:
                seconds[each] = passed
                if each.exitcode and "RANK" in copies[0]:  # as torchrun does: where one fails, the others are ended
                    _send(runs, signal.SIGTERM)
        if kill_after is not None and passed > kill_after:
            _send(runs, with_signal)
            kill_after = None
        if kill_once_in is not None and any(path.stat().st_size for path in kill_once_in.glob("*.jsonl")):
            _send(runs[:1], with_signal)
            kill_once_in = None
        if passed > LONGEST:
            _send(runs, signal.SIGKILL)
        time.sleep(0.002)
    return [
        Ended(each.exitcode, seconds[each], error.read_text(errors="replace") if error.exists() else "")
        for each, error in zip(runs, errors, strict=True)
    ]


def _send(runs, number):
    for each in runs:
        if each.exitcode is None:
            os.kill(each.pid, number)


def _work(words, folder, environment, error, file_size, out):
    os.environ.update(environment)
    os.chdir(folder)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(os.open(out, os.O_WRONLY), 1)
    os.dup2(os.open(error, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666), 2)
    sys.stdout, sys.stderr = (os.fdopen(number, "w") for number in (1, 2))
    if file_size is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_size, resource.RLIM_INFINITY))
    from matplotlib.figure import Figure

    from captum_gmar.cli.main import main

    Figure.savefig = _save_blank
    sys.exit(main(words))


def _save_blank(figure, file, **options):
    """Write as many bytes as a picture has; drawing it would take longer than all else."""
    (file.write_bytes if isinstance(file, Path) else file.write)(bytes(40_000))
