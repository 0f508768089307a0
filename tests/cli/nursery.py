"""Runs of ``captum-gmar`` as processes that start at once: forked from one that has loaded everything and run nothing.

A process of its own takes seconds to load torch. This one loads it once; it is a program that reads one request per
line of its standard input and answers each with a line, so that nothing it does reaches the process that asks.
"""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Ended:
    """How a run ended."""

    status: int  # below zero the signal that ended it
    seconds: float
    error: str  # what it said on stderr


class Nursery:
    """Starts runs on the model in a folder, kills them after a time, and gives them less room on the disk.

    Pictures are not drawn, which takes longer than all else: files of their size are written.
    """

    def __init__(self, model):
        self._model = model

    def __enter__(self):
        command = [sys.executable, __file__, str(self._model)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        return self

    def __exit__(self, kind, error, at):
        self._process.communicate()

    def run(
        self,
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
        """Run a command, once or with each of several environments at once, and return how it ended.

        After so many seconds, or once something is written in that journal, it is sent the signal (the first copy
        alone); no file may grow beyond ``file_size`` bytes, as on a full disk; ``out`` is its standard output.
        """
        request = {
            "words": list(words),
            "folder": str(folder),
            "kill_after": kill_after,
            "kill_once_in": str(kill_once_in) if kill_once_in else None,
            "signal": int(with_signal),
            "file_size": file_size,
            "copies": [dict(copy) for copy in copies],
            "out": out,
        }
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return [Ended(**answer) for answer in json.loads(self._process.stdout.readline())]


def _serve(model):
    """Answer requests. No backward pass may run here: torch's threads do not outlive a fork."""
    import gc
    import pkgutil
    from contextlib import suppress
    from importlib import import_module

    from matplotlib.figure import Figure
    from PIL import Image

    import captum_gmar
    from captum_gmar.classifier import load_classifier

    for module in pkgutil.walk_packages(captum_gmar.__path__, "captum_gmar."):
        with suppress(ImportError):  # of packages that are not needed
            if not module.name.endswith("__main__"):
                import_module(module.name)
    with open(os.devnull, "w") as nowhere:
        sys.stderr = nowhere  # progress bars
        load_classifier(Path(model))
        sys.stderr = sys.__stderr__
    Figure.savefig = _save_blank
    Image.init()
    gc.collect()
    gc.freeze()  # no run looks through what all share
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        answers.write(json.dumps(_answer(json.loads(line))) + "\n")
        answers.flush()


def _save_blank(figure, file, **options):
    """Write as many bytes as a picture has."""
    if isinstance(file, Path):
        file.write_bytes(bytes(40_000))
    else:
        file.write(bytes(40_000))


def _answer(request):
    errors = [Path(request["folder"]).parent / f"stderr-{number}" for number in range(len(request["copies"]))]
    began = time.monotonic()
    copies = enumerate(zip(request["copies"], errors, strict=True))
    children = {_start(request, extra, error): number for number, (extra, error) in copies}
    ended = {}
    while len(ended) < len(children):
        process, status = os.waitpid(-1, os.WNOHANG)
        seconds = time.monotonic() - began
        if process:
            ended[process] = os.waitstatus_to_exitcode(status), seconds
            if status and len(children) > 1:  # as torchrun does: where one fails, the others are ended
                _send(children.keys() - ended.keys(), signal.SIGTERM if "RANK" in request["copies"][0] else 0)
        elif request["kill_after"] is not None and seconds > request["kill_after"]:
            _send(children.keys() - ended.keys(), request["signal"])
            request["kill_after"] = None
        elif request["kill_once_in"] is not None and _any_written(Path(request["kill_once_in"])):
            _send({min(children, key=children.__getitem__)} - ended.keys(), request["signal"])
            request["kill_once_in"] = None
        elif seconds > 120:
            _send(children.keys() - ended.keys(), signal.SIGKILL)
        else:
            time.sleep(0.002)
    order = sorted(children, key=children.__getitem__)
    texts = [error.read_text(errors="replace") for error in errors]
    return [
        {"status": ended[child][0], "seconds": ended[child][1], "error": text}
        for child, text in zip(order, texts, strict=True)
    ]


def _any_written(journal):
    return any(path.stat().st_size for path in journal.glob("*.jsonl"))


def _send(processes, number):
    for process in processes:
        os.kill(process, number)


def _start(request, environment, error):
    process = os.fork()
    if process:
        return process
    status = 70
    try:
        os.environ.update(environment)
        os.chdir(request["folder"])
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(os.open(request["out"], os.O_WRONLY), 1)
        os.dup2(os.open(error, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666), 2)
        sys.stdout, sys.stderr = (os.fdopen(number, "w") for number in (1, 2))
        if request["file_size"] is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (request["file_size"], resource.RLIM_INFINITY))
        from captum_gmar.cli.main import main

        status = main(request["words"])
        sys.stderr.flush()
    except SystemExit as end:
        status = int(end.code or 0)
    except BaseException:
        import traceback

        os.write(2, traceback.format_exc().encode())
    finally:
        os._exit(status)


if __name__ == "__main__":
    _serve(sys.argv[1])
