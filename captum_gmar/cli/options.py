"""Arguments that several commands take, as argparse reads them."""

import argparse
import re
from collections.abc import Callable, Sequence
from typing import Any

from captum_gmar.attr.catalogue import METHODS
from captum_gmar.cli.methods import method_name

TOP = re.compile(r"top([1-9]\d{0,8})")  # each image's K most likely classes


def command_parser(
    subparsers: Any,
    name: str,
    run: Callable[[argparse.Namespace], tuple[int, int]],
    *,
    help: str,
    description: str,
    epilog: str,
) -> argparse.ArgumentParser:
    """A parser of a command that runs ``run``; its texts are shown in the lines that they have."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        name,
        help=help,
        description=description,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.set_defaults(run=run)
    return parser


def add_device_and_size(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--device", type=device, default="auto", metavar="auto|cpu|cuda[:n]", help="where to run")
    add("--size", type=positive, metavar="N", help="run at NxN pixels, a multiple of the model's patch size")


def top_classes(text: str) -> int | None:
    """How many of each image's most likely classes ``--target`` asks for; None if it names a class.

    >>> top_classes("top5"), top_classes("tabby")
    (5, None)
    """
    found = TOP.fullmatch(text.strip().casefold())
    return int(found[1]) if found else None


def positive(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not int(text):
        raise argparse.ArgumentTypeError(f"must be a whole number above zero. Got {text!r} instead.")
    return int(text)


def whole(text: str) -> int:
    if not text.isascii() or not text.isdigit():
        raise argparse.ArgumentTypeError(f"must be a whole number, zero or more. Got {text!r} instead.")
    return int(text)


def part(text: str) -> tuple[int, int]:
    """
    >>> part("2/3")
    (2, 3)
    """
    found = re.fullmatch(r"(\d+)/(\d+)", text, re.ASCII)
    own, parts = map(int, found.groups()) if found else (0, 0)
    if not 1 <= own <= parts:
        raise argparse.ArgumentTypeError(f"must be K/N, two numbers with K from 1 to N. Got {text!r} instead.")
    return own, parts


def device(text: str) -> str:
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", text):
        raise argparse.ArgumentTypeError(f"must be auto, cpu, cuda or cuda:n. Got {text!r} instead.")
    return text


def method_names(text: str) -> Sequence[str]:
    """One ``--methods``: names between commas, or "all".

    >>> method_names("gmar-l1, rollout,gmar-l1")
    ('gmar-l1', 'rollout')
    """
    if text.strip().lower() == "all":
        return tuple(METHODS)
    return tuple(dict.fromkeys(method_name(name) for name in text.split(",")))


def names_of(known: Sequence[str]) -> Callable[[str], Sequence[str]]:
    """Of an argument that is some of these names between commas, or "all".

    >>> names_of(["blur", "mean", "zero"])("Zero, blur")
    ('zero', 'blur')
    """

    def names(text: str) -> Sequence[str]:
        given = dict.fromkeys(name.strip().lower() for name in text.split(","))
        unknown = [name for name in given if name not in known]
        if list(given) == ["all"]:
            return known
        if unknown:
            raise argparse.ArgumentTypeError(f"must be of {', '.join(known)}, or all. Got {unknown[0]!r} instead.")
        return tuple(given)

    return names
