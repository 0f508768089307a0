"""Names of files: readable ones, and such that every file system takes."""

import os
import re
from pathlib import Path

LONGEST = 255  # bytes of a name, on the file systems in use


def readable_name(path: str | Path) -> str:
    r"""Return the path as text; bytes of it that are no UTF-8 become ``\x..``.

    >>> readable_name("latin\udce9.jpg")
    'latin\\xe9.jpg'
    """
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def safe_name(text: str, longest: int = 40) -> str:
    """Remove characters with a meaning to a shell or a file system, and cut the text to so many bytes.

    >>> safe_name("tabby, tabby cat / 3%")
    'tabby-tabby-cat-3'
    """
    return fit_name(re.sub(r"[^\w.+]+", "-", text).strip("-."), "", longest)


def fit_name(stem: str, ending: str, longest: int = LONGEST) -> str:
    """Return ``stem + ending``, with the stem cut so that the name has at most so many bytes.

    >>> fit_name("photo", ".png")
    'photo.png'
    """
    kept = stem
    while len(os.fsencode(kept + ending)) > longest and kept:
        kept = kept[:-1]
    return kept + ending


def check_file(path: Path, kind: str) -> None:
    """Check that something can be read of this path; the error names it, the kind ("an image") and what is there."""
    name = readable_name(path)
    if path.is_dir():
        raise OSError(f"{name} cannot be read: it is a folder, not {kind}. Pass a file in it.")
    if path.is_file():
        if not path.stat().st_size:
            raise OSError(f"{name} cannot be read: the file is empty. Fetch it again.")
        return
    if path.exists():
        raise OSError(f"{name} cannot be read: it is a pipe or a device, not {kind}. Pass a file.")
    if name == "-":
        raise OSError(f"{name} cannot be read: no such file. Pass {kind} as a file, as standard input is not read.")
    if re.match(r"[a-z]{2,}:/", name):
        raise OSError(f"{name} cannot be read: no such file. Download it first, as no address is opened.")
    raise OSError(f"{name} cannot be read: no such file. Check the path.")
