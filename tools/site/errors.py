"""Every message of the package's errors, as a page to search: what it says, when it comes, and what to do.

Messages are read from the code; so a new one is on the page, and one that is gone is not.
"""

import ast
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from tools.site.facts import DOCS, write_page

PACKAGE = DOCS.parent / "captum_gmar"
BLANK = "…"  # of what a message fills in
# What the rooms of the package are about, as a user meets them. Errors of a room without a row stand under Elsewhere.
AREAS = {
    "Methods": ("attr",),
    "Models and images": ("engine",),
    "Generated words": ("vlm",),
    "Loading a model and naming a class": ("classifier",),
    "Reading and writing files": ("files",),
    "Metrics": ("metrics",),
    "Heads": ("ablation",),
    "Data sets": ("evaluation",),
    "Pictures": ("visualization",),
    "Comparing and exploring": ("inspection", "demo"),
    "The command line": ("cli",),
    "Elsewhere": (),
}
NOT_FOR_USERS = {"AttributeError", "NotImplementedError", "KeyError", "AssertionError"}
LONGEST = 90  # letters of a condition that still says something


class Message(NamedTuple):
    """One message.

    Attributes:
        kind: the error's class.
        text: with a blank for whatever it fills in.
        cause: the condition that it comes under, as the code has it; empty where it comes of itself.
        cure: what to do; empty if the message states the condition that must hold.
        module: where it is raised.
    """

    kind: str
    text: str
    cause: str
    cure: str
    module: str


def write_errors() -> None:
    """Write ``docs/errors.md``, of the table written by hand and a list of areas, and a page of messages for each."""
    messages, listed, pages = list(read_messages()), [], []
    for area in AREAS:
        chosen = sorted((message for message in messages if _area(message) == area), key=lambda message: message.text)
        if chosen:
            pages.append("errors/" + area.lower().replace(" ", "-"))
            listed.append(f"- [{area}]({pages[-1]}.md): {len(chosen)} messages")
            parts = [f"# Errors: {area.lower()}", *map(_entry, chosen)]
            write_page(DOCS / f"{pages[-1]}.md", "\n\n".join(parts) + "\n")
    table = (DOCS / "errors-by-symptom.md").read_text(encoding="utf-8")
    tree = "\n".join(["```{toctree}", ":hidden:", "", *pages, "```"])
    write_page(DOCS / "errors.md", "\n".join([table, "## All messages", "", *listed, "", tree, ""]))


def read_messages() -> Iterator[Message]:
    """Read every ``raise`` in the package, each text once for a module."""
    for path in sorted(PACKAGE.rglob("*.py")):
        seen = set()
        tree = ast.parse(path.read_text(encoding="utf-8"))
        constants = _constants(tree)
        for node, condition in _raised(tree):
            text = _text(node.args[0], constants) if node.args else ""
            kind = ast.unparse(node.func)
            if not re.search(r"\w{3}", text.replace(BLANK, "")) or kind in NOT_FOR_USERS or text in seen:
                continue
            seen.add(text)
            yield Message(kind.split(".")[-1], text, condition, _cure(text), _module(path))


def _raised(tree: ast.AST) -> Iterator[tuple[ast.Call, str]]:
    """Yield each error that is raised, or returned to be raised, with its condition."""
    conditions = _conditions(tree)
    for node in ast.walk(tree):
        value = node.exc if isinstance(node, ast.Raise) else node.value if isinstance(node, ast.Return) else None
        if isinstance(value, ast.Call) and ast.unparse(value.func).endswith("Error"):
            yield value, conditions.get(node, "")


def _conditions(tree: ast.AST) -> dict[ast.AST, str]:
    """Return the innermost ``if`` or ``except`` around each statement."""
    under: dict[ast.AST, str] = {}
    for node in ast.walk(tree):  # from without to within: what is nearer comes later
        if isinstance(node, ast.If):
            under |= dict.fromkeys(node.body, ast.unparse(node.test))
        if isinstance(node, ast.ExceptHandler) and node.type is not None:
            under |= dict.fromkeys(node.body, f"except {ast.unparse(node.type)}")
    return under


def _constants(tree: ast.Module) -> dict[str, ast.expr]:
    """Return the module's own constants by name."""
    single = [node for node in tree.body if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)]
    return {ast.unparse(node.targets[0]): node.value for node in single}


def _text(node: ast.expr, constants: Mapping[str, ast.expr]) -> str:
    """Return the message with blanks."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(_text(part, constants) if isinstance(part, ast.Constant) else BLANK for part in node.values)
    if isinstance(node, ast.BinOp):
        return _text(node.left, constants) + _text(node.right, constants)
    if isinstance(node, ast.Name) and isinstance(value := constants.get(node.id), ast.Constant | ast.JoinedStr):
        return _text(value, constants)
    return BLANK


def _cure(text: str) -> str:
    """Return the sentences after what was passed; "" if the message is a condition."""
    return " ".join(re.split(r"(?<=[.?!]) (?=[A-Z`])", text)[1:])


def _module(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")


def _area(message: Message) -> str:
    room = message.module.split(".")[1] if "." in message.module else ""
    return next((area for area, rooms in AREAS.items() if room in rooms), "Elsewhere")


def _entry(message: Message) -> str:
    text = message.text.replace("\n", " ").replace("`", "ˋ")
    comes = f", when `{message.cause}`" if message.cause and len(message.cause) <= LONGEST else ""
    cure = message.cure.replace("*", "\\*").replace("<", "\\<").replace("$", "\\$")  # as Markdown reads them otherwise
    return f"`{text}`\n: {message.kind} of `{message.module}`{comes}.\n  {cure}".rstrip()
