"""Settings of Matplotlib, the same on every machine."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager


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
        _import_without_backend()
        import matplotlib

        with matplotlib.rc_context():
            matplotlib.rcdefaults()
            yield
    finally:
        logger.setLevel(level)


def _import_without_backend() -> None:
    if "matplotlib" in sys.modules:
        return
    backend = os.environ.get("MPLBACKEND")
    os.environ["MPLBACKEND"] = "agg"  # it has precedence over settings files
    try:
        import matplotlib  # noqa: F401
    finally:
        del os.environ["MPLBACKEND"]
        if backend is not None:
            os.environ["MPLBACKEND"] = backend
