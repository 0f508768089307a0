"""The command ``captum-gmar``.

Only the parser is built here, from the arguments that each command declares. Nothing heavy is imported before a
command runs, so that help and usage errors come at once.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from captum_gmar import __version__
from captum_gmar.cli import compare, evaluate, explain, heads
from captum_gmar.cli.terminal import CommandError, report

COMMANDS = [explain, compare, evaluate, heads]

OK, SOME_FAILED, NOTHING_DONE, INTERRUPTED = 0, 1, 2, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Runs ``captum-gmar`` and returns its exit status: 0 all done, 1 some failed, 2 nothing done, 130 interrupted."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # a class name may be in any script
    arguments = _parser().parse_args(argv)
    try:
        done, failed = arguments.run(arguments)
    except CommandError as error:
        report(error)
        return NOTHING_DONE
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has left. What is still buffered must not be flushed into the closed pipe at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return SOME_FAILED
    if not failed:
        return OK
    return SOME_FAILED if done else NOTHING_DONE


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        report(message)
        sys.exit(NOTHING_DONE)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="captum-gmar",
        description="Explains vision transformers: which patches of an image fed a prediction.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in COMMANDS:
        command.add_command(subparsers)
    return parser
