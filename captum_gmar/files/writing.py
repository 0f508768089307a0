"""Writing a file as a whole or not at all."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SOFTWARE = "captum-gmar"  # noted in the pictures, to know them again
PAPER: dict[str, Any] = {"dpi": 150, "bbox_inches": "tight", "pad_inches": 0.1}


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
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise OSError(f"{path}: cannot be written: {error.strerror or error}") from error
        raise


def save_picture(figure: "Figure", path: Path) -> None:
    """Writes the figure in the format that the suffix names.

    Raises:
        OSError: if it cannot be written; the message names ``path``.
    """
    suffix = path.suffix[1:].lower()
    with replacing(path) as temporary:
        figure.savefig(temporary, format=suffix, metadata={"Software": SOFTWARE} if suffix == "png" else None, **PAPER)
