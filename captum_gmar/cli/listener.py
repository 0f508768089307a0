"""What a run over a data set has to say on its way, said on stderr."""

import sys
from functools import partial

from captum_gmar.cli.terminal import report
from captum_gmar.evaluation.runs.progress import Listener


def listener_of(same: str | None, speaks: bool = True) -> Listener:
    """
    Args:
        same: what goes on with an interrupted run; None if nothing does.
        speaks: whether this process says how far it is, which of several only the first does.
    """
    is_terminal = sys.stderr.isatty()
    return Listener(
        note=partial(report, kind="note"),
        skip=report,
        has_bar=speaks and is_terminal,
        line=partial(report, kind="progress") if speaks and not is_terminal else None,
        goes_on=same if speaks else None,
    )
