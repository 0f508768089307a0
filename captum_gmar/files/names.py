"""Names of files: as a person reads them, and made of any text so that every file system takes them."""

import os
import re
from pathlib import Path

LONGEST = 255  # bytes of a name, on the file systems in use


def readable(path: str | Path) -> str:
    r"""The path as text for the eye: bytes of it that are no UTF-8, which the file system allows, become ``\x..``.

    >>> readable("latin\udce9.jpg")
    'latin\\xe9.jpg'
    """
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def safe(text: str, longest: int = 40) -> str:
    """The text without what means something to a shell or a file system, cut to so many bytes.

    >>> safe("tabby, tabby cat / 3%")
    'tabby-tabby-cat-3'
    """
    return fitting(re.sub(r"[^\w.+]+", "-", text).strip("-."), "", longest)


def fitting(stem: str, ending: str, longest: int = LONGEST) -> str:
    """The name ``stem + ending``, of whose stem as much is left out at its end as makes it so many bytes.

    >>> fitting("photo", ".png")
    'photo.png'
    """
    kept = stem
    while len(os.fsencode(kept + ending)) > longest and kept:
        kept = kept[:-1]
    return kept + ending
