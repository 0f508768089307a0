"""Writing a file as a whole or not at all."""

import csv
import json
import os
import secrets
import warnings
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from captum_gmar.files.names import readable

if TYPE_CHECKING:
    import numpy.typing as npt
    from matplotlib.figure import Figure

SOFTWARE = "captum-gmar"  # noted in pictures, to know them again
DOTS_PER_INCH = 120
EXIF_SOFTWARE = 0x0131  # the number of that field
QUICK = {"compress_level": 1, "compress_type": zlib.Z_RLE}  # of PNG: a third of the time, and not larger


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a temporary name in the folder of ``path`` to write to; at the end of the block it becomes ``path``.

    After an error or an interrupt the temporary file is removed and what stood at ``path`` still stands.

    Raises:
        OSError: if it cannot be written; the message names ``path``.
    """
    target = Path(os.path.realpath(path))  # a link stays a link: the file it leads to is replaced
    temporary = target.with_name(f".captum-gmar-{secrets.token_hex(8)}.tmp")
    try:
        yield temporary
        os.replace(temporary, target)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise OSError(f"{readable(path)}: cannot be written: {error.strerror or error}") from error
        raise


def write_text(path: Path, text: str) -> None:
    """Writes a text in UTF-8. File names in it that are no UTF-8 become readable ones.

    Raises:
        OSError: as :func:`replacing`.
    """
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_json(path: Path, content: object) -> None:
    """Writes what JSON can hold; raises as :func:`write_text`."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Writes a table row by row; raises as :func:`write_text`."""
    with (
        replacing(path) as temporary,
        temporary.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file,
    ):
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


def save_arrays(path: Path, arrays: "Mapping[str, npt.NDArray[Any]]") -> None:
    """Writes a compressed NumPy file of arrays by name; raises as :func:`replacing`."""
    import numpy as np

    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]


def save_picture(figure: "Figure", path: Path) -> None:
    """Writes the figure in the format that the suffix names, with a note by which :func:`is_picture` knows it again.
    Its folder is made if it is not there.

    Raises:
        OSError: as :func:`replacing`.
    """
    suffix = path.suffix[1:].lower()
    options: dict[str, Any] = {"dpi": DOTS_PER_INCH}
    if suffix == "png":
        options |= {"metadata": {"Software": SOFTWARE}, "pil_kwargs": QUICK}
    if suffix in ("jpg", "jpeg"):
        options["pil_kwargs"] = {"exif": _note(), "quality": 90}
    with replacing(path) as temporary:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(temporary, format=suffix, **options)


def is_picture(path: Path) -> bool:
    """Whether :func:`save_picture` has written it, by the note in it: names are the user's."""
    if path.suffix.lower() not in (".png", ".jpg", ".jpeg"):
        return False
    from PIL import Image

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # reading it, if it comes to that, tells more
        try:
            with Image.open(path) as image:
                return SOFTWARE in (image.info.get("Software"), image.getexif().get(EXIF_SOFTWARE))
        except Exception:  # whatever a damaged file makes of Pillow's reader
            return False


def _note() -> bytes:
    from PIL import Image

    exif = Image.Exif()
    exif[EXIF_SOFTWARE] = SOFTWARE
    return exif.tobytes()
