"""What the options that name methods check."""

import argparse
from collections.abc import Sequence

from captum_gmar.attr.catalogue import find_method
from captum_gmar.cli.terminal import CommandError


def method_name(text: str) -> str:
    """The argument of ``--method``."""
    try:
        return find_method(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error).removeprefix("method ")) from None


def check_taken(option: str, names: Sequence[str], taking: Sequence[str]) -> None:
    """Checks that all of the methods take the option.

    Raises:
        CommandError: if some do not.
    """
    others = [name for name in names if name not in taking]
    if others:
        raise CommandError(
            f"{option} must go with methods that take it: {', '.join(taking)}. Got {', '.join(others)} instead."
        )
