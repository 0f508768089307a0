"""GMAR and its family for Captum: attribution methods that read the attention of vision transformers.

The public names are those of ``__init__.pyi``, one row each. They are loaded when first used, so that
``import captum_gmar`` costs nothing.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"


def _read_homes() -> dict[str, str]:
    """The module of each public name, of the rows ``from module import name as name``."""
    with open(f"{__file__}i", encoding="utf-8") as stub:
        rows = [line.split() for line in stub if line.startswith("from ")]
    return {name: module for _, module, _, name, *_ in rows}


_HOMES = _read_homes()
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
