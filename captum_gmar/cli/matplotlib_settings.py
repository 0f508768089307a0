"""Settings of Matplotlib, the same on every machine."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def default_drawing() -> Iterator[None]:
    """Let Matplotlib draw with its own settings, to files alone, whatever the user's settings files say.

    Enter the block before anything else imports Matplotlib, which reads those files and looks for their backend.
    """
    import logging

    logger = logging.getLogger("matplotlib")
    level = logger.level
    logger.setLevel(logging.ERROR)  # it warns of damaged settings and missing fonts
    try:
        matplotlib = _import_without_backend()
        with matplotlib.rc_context():
            matplotlib.rcdefaults()
            yield
    finally:
        logger.setLevel(level)


def _import_without_backend() -> Any:
    given = {name: os.environ.pop(name) for name in ("MPLBACKEND",) if name in os.environ}
    os.environ["MPLBACKEND"] = "agg"  # it has precedence over settings files
    try:
        import matplotlib
    finally:
        del os.environ["MPLBACKEND"]
        os.environ |= given
    return matplotlib
