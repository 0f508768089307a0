"""The public names and what they are called with, a line each, to be compared with what was promised.

``python -m tools.public_names`` writes ``tests/public_names.txt``. A line that goes or changes breaks somebody's code:
it takes a new major version (a minor one before 1.0), and a line in the changelog.
"""

import inspect
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

LIST = Path(__file__).resolve().parents[1] / "tests" / "public_names.txt"
MODULES = (
    "captum_gmar",
    *(f"captum_gmar.{name}" for name in ("ablation", "classifier", "demo", "metrics", "visualization")),
)
INHERITED = ("attribute", "explain", "head_importance", "relevance", "relevance_flow")


def public_names() -> list[str]:
    """``module.name(parameters)`` of every name, and of methods' calls."""
    return [line for module in MODULES for line in _of_module(module)]


def _of_module(module: str) -> Iterator[str]:
    loaded = import_module(module)
    for name in sorted(getattr(loaded, "__all__", None) or _defined(loaded)):
        value = getattr(loaded, name)
        yield f"{module}.{name}{_parameters(value)}"
        if inspect.isclass(value):
            for call in INHERITED:
                if callable(method := getattr(value, call, None)):
                    yield f"{module}.{name}.{call}{_parameters(method)}"


def _defined(module: Any) -> list[str]:
    """Return the names without underscore that a module, or one below it that it takes whole, defines."""
    return [
        name
        for name, value in vars(module).items()
        if name[0] != "_"
        and not inspect.ismodule(value)
        and str(getattr(value, "__module__", "")).startswith(module.__name__)
    ]


def _parameters(value: Any) -> str:
    """Names, kinds and defaults; types may be told better without breaking anything."""
    if not callable(value):
        return ""
    try:
        signature = inspect.signature(value)
    except ValueError:  # of a class that is made in C
        return ""
    bare = [each.replace(annotation=inspect.Parameter.empty) for each in signature.parameters.values()]
    text = str(signature.replace(parameters=bare, return_annotation=inspect.Signature.empty))
    return re.sub(r" at 0x[0-9a-f]+", "", text)


if __name__ == "__main__":
    LIST.write_text("\n".join(public_names()) + "\n", encoding="utf-8")
