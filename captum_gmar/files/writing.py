"""Writing a file as a whole or not at all."""

import csv
import json
import os
import secrets
import warnings
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from captum_gmar.files.names import readable_name

if TYPE_CHECKING:
    import numpy.typing as npt
    from matplotlib.figure import Figure

SOFTWARE = "captum-gmar"  # noted in pictures, to know them again
DOTS_PER_INCH = 120
EXIF_SOFTWARE, EXIF_DESCRIPTION = 0x0131, 0x010E  # the numbers of these fields
PAGE_NOTE = f"<!-- {SOFTWARE} "
_GREATER = "\\u003e"  # as JSON has it, so that no text ends the note
_TEMPORARY = ".captum-gmar-", ".tmp"  # begin and end of names
# TrueType, which journals take, and text that can be edited.
TEXT_AS_TEXT: dict[Any, Any] = {"pdf.fonttype": 42, "svg.fonttype": "none"}
QUICK = {"compress_level": 1, "compress_type": zlib.Z_RLE}  # of PNG: a third of the time, and not larger


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary name in the folder of ``path`` to write to; at the end of the block it becomes ``path``.

    After an error or an interrupt the temporary file is removed, and the file at ``path`` is unchanged.
    """
    target = Path(os.path.realpath(path))  # a link stays a link: the file it leads to is replaced
    temporary = target.with_name(secrets.token_hex(8).join(_TEMPORARY))
    try:
        yield temporary
        os.replace(temporary, target)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise OSError(
                f"{readable_name(path)} cannot be written: {error.strerror or error}. Pass another."
            ) from error
        raise


def is_temporary(path: Path) -> bool:
    """Return whether the name is one that :func:`atomic_write` writes to, which a kill leaves behind."""
    return path.name.startswith(_TEMPORARY[0]) and path.name.endswith(_TEMPORARY[1])


def remove_temporary_files(folder: Path) -> None:
    """Remove what writers that were killed have left in a folder, in which nobody writes, and below it."""
    for path in filter(is_temporary, folder.rglob("*")):
        path.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text in UTF-8. File names in it that are no UTF-8 become readable ones."""
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_json(path: Path, content: object) -> None:
    """Write what JSON can hold; raises as :func:`write_text`."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a table row by row; raises as :func:`write_text`."""
    with (
        atomic_write(path) as temporary,
        temporary.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file,
    ):
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


def save_arrays(path: Path, arrays: "Mapping[str, npt.NDArray[Any]]") -> None:
    """Write a compressed NumPy file of arrays by name; raises as :func:`atomic_write`."""
    import numpy as np

    with atomic_write(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]


def save_picture(figure: "Figure", path: Path, note: str = "") -> None:
    """Write the figure in the format that the suffix names, with a note in ASCII, and make its folder."""
    suffix = path.suffix[1:].lower()
    options: dict[str, Any] = {"dpi": DOTS_PER_INCH}
    if suffix == "png":
        options |= {"metadata": {"Software": SOFTWARE, "Description": note}, "pil_kwargs": QUICK}
    elif suffix in ("jpg", "jpeg"):
        options["pil_kwargs"] = {"exif": _exif(note), "quality": 90}
    else:
        options["metadata"] = {"Subject" if suffix == "pdf" else "Description": note}
    # Whole in memory first: a full disk leaves Matplotlib's PDF with what it cannot close.
    from matplotlib import rc_context

    with rc_context(TEXT_AS_TEXT):
        figure.savefig(drawn := BytesIO(), format=suffix, **options)
    with atomic_write(path) as temporary:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(drawn.getbuffer())


def write_page(path: Path, html: str, note: str) -> None:
    """Write a page of HTML with the note, in ASCII, that :func:`read_note` finds in it again; raises as
    :func:`write_text`."""
    write_text(path, f"{html.rstrip()}\n{PAGE_NOTE}{note.replace('>', _GREATER)} -->\n")


def read_note(path: Path) -> str | None:
    """Return the note of a PNG, JPEG, GIF or HTML file that this package wrote, and None of any other file."""
    if path.suffix.lower() == ".html":
        _, found, note = path.read_text(encoding="utf-8", errors="replace").rpartition(PAGE_NOTE)
        return note.strip().removesuffix(" -->") if found else None
    from PIL import Image

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # reading it, if it comes to that, tells more
        try:
            with Image.open(path) as image:
                exif = image.getexif()
                software, _, note = image.info.get("comment", b"").decode("ascii", "replace").partition(" ")
                if software == SOFTWARE:  # a film
                    return str(note)
                if SOFTWARE not in (image.info.get("Software"), exif.get(EXIF_SOFTWARE)):
                    return None
                return str(image.info.get("Description", exif.get(EXIF_DESCRIPTION, "")))
        except Exception:  # whatever a damaged file makes of Pillow's reader
            return None


def is_picture(path: Path) -> bool:
    """Return whether it has a note of :func:`save_picture`: names are the user's."""
    return path.suffix.lower() in (".png", ".jpg", ".jpeg", ".gif") and read_note(path) is not None


def _exif(note: str) -> bytes:
    from PIL import Image

    exif = Image.Exif()
    exif[EXIF_SOFTWARE], exif[EXIF_DESCRIPTION] = SOFTWARE, note
    return exif.tobytes()
