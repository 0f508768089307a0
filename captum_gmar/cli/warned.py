"""Which warnings the commands pass on, and how."""

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from captum_gmar.attr._base import NO_GRADIENT
from captum_gmar.cli.terminal import report


@contextmanager
def own_warning() -> Iterator[None]:
    """Tells this package's warning as the command tells its errors, and no other package's."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.filterwarnings("default", message=re.escape(NO_GRADIENT))
        warnings.showwarning = lambda message, *_, **__: report(message, "warning")
        yield
