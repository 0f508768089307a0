"""Names of files: as a person reads them, made of any text so that every file system takes them, and what is there."""

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


def check_file(path: Path, kind: str) -> None:
    """
    Check that something can be read of this path.

    Args:
        path: of a file.
        kind: what it should be, as errors name it, such as "an image".

    Raises:
        OSError: if it is no file, or an empty one; the message names it, and says what is there.
    """
    name = readable(path)
    if path.is_dir():
        raise OSError(f"{name}: is a folder, not {kind}")
    if path.is_file():
        if not path.stat().st_size:
            raise OSError(f"{name}: the file is empty")
        return
    if path.exists():
        raise OSError(f"{name}: is a pipe or a device, not {kind}. Pass a file.")
    if name == "-":
        raise OSError(f"{name}: no such file. Pass {kind} as a file, as standard input is not read.")
    if re.match(r"[a-z]{2,}:/", name):
        raise OSError(f"{name}: no such file. Download it first, as no address is opened.")
    raise OSError(f"{name}: no such file")
