"""The command ``captum-gmar``.

Only the parser is built here, from the arguments that each command declares. Nothing heavy is imported before a
command runs, so that help and usage errors come at once.
"""

import argparse
import os
import re
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from captum_gmar import __version__
from captum_gmar.cli import app, audit, compare, evaluate, explain, heads
from captum_gmar.cli.terminal import CommandError, OutputError, one_line, report, reported_warnings

COMMANDS = [explain, compare, evaluate, heads, audit, app]

OK, SOME_FAILED, NOTHING_DONE, INTERRUPTED = 0, 1, 2, 130

# Errors of the library for wrong arguments, missing files, packages or memory, and models that it cannot explain.
REPORTED_ERRORS = (
    *(CommandError, ValueError, TypeError, OSError, RuntimeError),
    *(AssertionError, ArithmeticError, LookupError, ImportError, MemoryError),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``captum-gmar`` and return its exit status: 0 all done, 1 some failed, 2 nothing done, 130 interrupted."""
    _open_streams()
    try:
        arguments = _parser().parse_args(argv)
        arguments.given = sys.argv[1:] if argv is None else list(argv)
        status = _run(arguments)
        sys.stdout.flush()
    except OutputError as error:
        report(error)
    except BrokenPipeError:
        pass
    except OSError as error:
        report(f"standard output cannot be written: {error.strerror or error}")
    else:
        return status
    # What is still buffered for whoever read our output must not be flushed into a closed pipe or a full disk at exit.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return SOME_FAILED


def _run(arguments: argparse.Namespace) -> int:
    try:
        with reported_warnings():
            done, failed = arguments.run(arguments)
    except BrokenPipeError:
        raise
    except REPORTED_ERRORS as error:
        report(_with_options(one_line(error), arguments))
        return NOTHING_DONE
    except KeyboardInterrupt:
        return INTERRUPTED
    if not failed:
        return OK
    return SOME_FAILED if done else NOTHING_DONE


def _with_options(message: str, arguments: argparse.Namespace) -> str:
    """Replace Python argument names in an error message by option names.

    >>> _with_options("batch_size must be above zero, but got 0.", argparse.Namespace(batch_size=0))
    '--batch-size must be above zero, but got 0.'
    >>> _with_options("m cannot be loaded: no such folder", argparse.Namespace(model="m"))
    '--model m cannot be loaded: no such folder'
    """
    model = getattr(arguments, "model", None)
    if model and message.startswith((f"{one_line(model)}: ", f"{one_line(model)} ")):
        return f"--model {message}"
    name = re.match(r"(\w+) (must|requires|cannot|'|\")", message)
    return (
        f"--{message.replace(name[1], name[1].replace('_', '-'), 1)}"
        if name and name[1] in vars(arguments)
        else message
    )


def _open_streams() -> None:
    """Make stdout and stderr take any text, even if they are closed, as for services."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115  # until the process ends
        getattr(sys, name).reconfigure(errors="backslashreplace")  # a class name may be in any script


class _Parser(argparse.ArgumentParser):
    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        # Of "--tokens -1,0" and "--box -5,0,9,9" as well: else argparse takes such a value for an option.
        self._negative_number_matcher = re.compile(r"-[\d.][\d.,\s]*$")

    def error(self, message: str) -> NoReturn:
        report(message)
        sys.exit(NOTHING_DONE)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="captum-gmar",
        description="Explains vision transformers: which patches of an image support a prediction.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in COMMANDS:
        command.add_command(subparsers)
    return parser
