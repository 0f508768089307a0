"""Arguments of several commands, as argparse reads them."""

import argparse
import re
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from captum_gmar.attr.catalogue import METHODS, STEPS, MethodEntry, find_method
from captum_gmar.cli.terminal import CommandError

if TYPE_CHECKING:
    from captum_gmar.engine.models.readout_tokens import Part

PLACES: "dict[Part, str]" = {
    "cls": "the CLS token",
    "distillation": "the distillation token",
    "patches": "the mean of the patches",
}
TOKEN_FORMS = "cls, distillation, patches, or the ROW,COLUMN of a patch, counted from 0 at the top left"
DRAWN_SCENES = 100  # of the built-in ones, unless another limit is given
METHODS_HELP = "methods that `captum-gmar explain --help` lists, or all"


class Top(NamedTuple):
    """The most likely classes of each image, and their number."""

    classes: int

    def __str__(self) -> str:
        return f"top{self.classes}"


MOST_LIKELY = Top(1)


class AddNames(argparse.Action):
    """An option of names between commas that may be repeated: it collects all of them, each once."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option: str | None = None
    ) -> None:
        given = getattr(namespace, self.dest)
        former = () if given is self.default else given
        setattr(namespace, self.dest, tuple(dict.fromkeys([*former, *values])))


class _HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """A formatter that does not break names of methods at their hyphens."""

    def _split_lines(self, text: str, width: int) -> list[str]:
        return textwrap.wrap(" ".join(text.split()), width, break_on_hyphens=False)


def command_parser(
    subparsers: Any,
    name: str,
    run: Callable[[argparse.Namespace], tuple[int, int]],
    *,
    help: str,
    description: str,
    epilog: str,
) -> argparse.ArgumentParser:
    """Return the parser of a command that calls ``run``; its texts keep their lines."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        name, help=help, description=description, epilog=epilog, formatter_class=_HelpFormatter, allow_abbrev=False
    )
    parser.set_defaults(run=run)
    return parser


def add_methods(parser: argparse.ArgumentParser, usual: Sequence[str], help: str = METHODS_HELP) -> None:
    """Add ``--methods``, None by default, for the usual methods of the command."""
    explained = "" if len(usual) == 1 else ", those that explain the model"
    parser.add_argument(
        "--methods",
        type=method_names,
        action=AddNames,
        metavar="NAME,...",
        help=f"{help}; may be repeated (default: {', '.join(usual)}{explained})",
    )


def add_device_and_size(parser: argparse.ArgumentParser) -> None:
    """Add ``--device`` and ``--size``."""
    add = parser.add_argument
    add("--device", type=device, default="auto", metavar="auto|cpu|cuda[:n]|mps|xpu", help="where to run")
    add("--size", type=positive_number, metavar="N", help="run at NxN pixels, a multiple of the model's patch size")


def add_steps(parser: argparse.ArgumentParser) -> None:
    """Add ``--steps``, for commands that remove patches."""
    parser.add_argument(
        "--steps",
        type=positive_number,
        metavar="N",
        help=f"steps of removal, at most the number of patches (default: {STEPS}, or all patches if fewer)",
    )


def add_sample(parser: argparse.ArgumentParser) -> None:
    """Add ``--limit`` and ``--seed``, for commands on a data set."""
    add = parser.add_argument
    add(
        "--limit", type=positive_number, metavar="N", help="take a random sample of N images; a later run can take more"
    )
    add("--seed", type=whole_number, default=0, metavar="N", help="seed of all random numbers (default: 0)")


def add_resources(parser: argparse.ArgumentParser, batch_size: int) -> None:
    """Add ``--device``, ``--size`` and ``--batch-size``, whose default depends on the command's need of memory."""
    add_device_and_size(parser)
    usual = f"images in one pass (default: {batch_size}, on a GPU 128)"
    parser.add_argument("--batch-size", type=positive_number, metavar="N", help=usual)


def positive_number(text: str) -> int:
    """Read a whole number above zero."""
    if not text.isascii() or not text.isdigit() or not int(text):
        raise argparse.ArgumentTypeError(f"must be a whole number above zero, but got {text!r}.")
    return int(text)


def whole_number(text: str) -> int:
    """Read a whole number, zero or more."""
    if not text.isascii() or not text.isdigit():
        raise argparse.ArgumentTypeError(f"must be a whole number, zero or more, but got {text!r}.")
    return int(text)


def part(text: str) -> tuple[int, int]:
    """
    >>> part("2/3")
    (2, 3)
    """
    numbers = re.fullmatch(r"(\d+)/(\d+)", text, re.ASCII)
    number, parts = map(int, numbers.groups()) if numbers else (0, 0)
    if not 1 <= number <= parts:
        raise argparse.ArgumentTypeError(f"must be K/N, two numbers with K from 1 to N, but got {text!r}.")
    return number, parts


def device(text: str) -> str:
    """Read the name of a device."""
    if not re.fullmatch(r"auto|[a-z]+(:\d+)?", text, re.ASCII):
        raise argparse.ArgumentTypeError(f"must be auto, cpu, cuda, cuda:n, mps or xpu, but got {text!r}.")
    return text


def place(text: str) -> str:
    """Read a path as text: a slash at its end, which ``Path`` would drop, names a folder."""
    if not text:
        raise argparse.ArgumentTypeError("must be a path, but got ''. Pass '.' for the current folder.")
    return text


def path(text: str) -> Path:
    """Read a path whose last slash does not matter."""
    return Path(place(text))


def target(text: str) -> Top | str:
    """Read the argument of ``--target``; a class is found later, in the model's labels.

    >>> target("top5"), target("tabby")
    (Top(classes=5), 'tabby')
    """
    top = re.fullmatch(r"top([1-9]\d{0,8})", text.strip().casefold())
    return Top(int(top[1])) if top else text


def box(text: str) -> tuple[float, float, float, float]:
    """
    >>> box("10,20, 110.5,200")
    (10.0, 20.0, 110.5, 200.0)
    """
    left, top, right, bottom = _comma_numbers(text, 4, "X0,Y0,X1,Y1, the left, top, right and bottom of a box")
    if not (left < right and top < bottom):
        raise argparse.ArgumentTypeError(f"must be a box with X0 < X1 and Y0 < Y1, but got {text!r}.")
    return left, top, right, bottom


def point(text: str) -> tuple[float, float]:
    """
    >>> point("10,20")
    (10.0, 20.0)
    """
    x, y = _comma_numbers(text, 2, "X,Y")
    return x, y


def inches(text: str) -> float:
    """
    >>> inches("3.25")
    3.25
    """
    (number,) = _comma_numbers(text, 1, "a number of inches")
    return number


def share(text: str) -> float:
    """Read a number from 0 to 1."""
    (number,) = _comma_numbers(text, 1, "a number from 0 to 1")
    if number > 1:
        raise argparse.ArgumentTypeError(f"must be a number from 0 to 1, but got {text!r}.")
    return number


def _comma_numbers(text: str, count: int, form: str) -> list[float]:
    parts = [part.strip() for part in text.split(",")]
    if len(parts) != count or not all(re.fullmatch(r"\d+(\.\d*)?", part, re.ASCII) for part in parts):
        raise argparse.ArgumentTypeError(f"must be {form}, none below zero, but got {text!r}.")
    return list(map(float, parts))


def token(text: str) -> "Part":
    """Read the argument of one ``--tokens``, as the methods take it.

    >>> token("cls"), token("3,10")
    ('cls', (3, 10))
    """
    name = text.strip().lower()
    for known in PLACES:
        if name == known:
            return known
    patch = re.fullmatch(r"(\d+)\s*,\s*(\d+)", name, re.ASCII)
    if not patch:
        raise argparse.ArgumentTypeError(f"must be {TOKEN_FORMS}, but got {text!r}.")
    return int(patch[1]), int(patch[2])


def method_name(text: str) -> str:
    """Read one method's name."""
    try:
        return find_method(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error).removeprefix("method ")) from None


def method_names(text: str) -> Sequence[str]:
    """Read one ``--methods``: names between commas, or "all".

    >>> method_names("gmar-l1, rollout,gmar-l1")
    ('gmar-l1', 'rollout')
    """
    if text.strip().lower() == "all":
        return tuple(METHODS)
    return tuple(dict.fromkeys(map(method_name, text.split(","))))


def with_passes(names: Sequence[str], passes: int | None) -> tuple[str, ...]:
    """Return the names of methods with this budget; as they are without one."""
    if passes is None:
        return tuple(names)
    check_taken("--passes", names, lambda method: method.takes_passes)
    return tuple(dict.fromkeys(METHODS[name.partition("@")[0]].with_passes(passes).name for name in names))


def names_of(known: Sequence[str]) -> Callable[[str], Sequence[str]]:
    """Return the reader of an argument with some of these names between commas, or "all".

    >>> names_of(["blur", "mean", "zero"])("Zero, blur")
    ('zero', 'blur')
    """

    def names(text: str) -> Sequence[str]:
        given = dict.fromkeys(name.strip().lower() for name in text.split(","))
        unknown = [name for name in given if name not in known]
        if list(given) == ["all"]:
            return known
        if unknown:
            raise argparse.ArgumentTypeError(f"must be of {', '.join(known)}, or all, but got {unknown[0]!r}.")
        return tuple(given)

    return names


class CompareSettings(NamedTuple):
    """The settings of a comparison."""

    methods: tuple[str, ...] | None = None  # None: the usual ones that explain the model
    target: str | None = None  # None: the most likely class
    removal: str = "blur"
    steps: int | None = None  # None: 28, or as many as there are patches
    ig_steps: int = 50
    batch_size: int | None = None
    size: int | None = None  # of the pixels; None: the model's own


def check_taken(option: str, names: Sequence[str], takes: Callable[[MethodEntry], bool]) -> None:
    """Check that all of the methods take the option; the error names those that do."""
    others = [name for name in names if not takes(METHODS[name])]
    if others:
        taking = ", ".join(name for name, entry in METHODS.items() if takes(entry))
        raise CommandError(f"{option} requires methods that take it: {taking}, but got {', '.join(others)}. Remove it.")


def start_name(tokens: "Sequence[Part]") -> str:
    """
    >>> start_name(["cls"]), start_name(["cls", (0, 1), (0, 2)])
    ('the CLS token', 'the CLS token, patch 0,1 and patch 0,2')
    """
    names = [f"patch {part[0]},{part[1]}" if isinstance(part, tuple) else PLACES[part] for part in tokens]
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
