"""Writing a file as a whole or not at all."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a temporary name in the folder of ``path`` to write to; at the end of the block it becomes ``path``.

    After an error or an interrupt the temporary file is removed and what stood at ``path`` still stands.
    """
    target = Path(os.path.realpath(path))  # a link stays a link: the file it leads to is replaced
    temporary = target.with_name(f".captum-gmar-{secrets.token_hex(8)}.tmp")
    try:
        yield temporary
        os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
