"""Progress of a run, and its messages in Python."""

import pytest

from captum_gmar.evaluation.runs import progress as module
from captum_gmar.evaluation.runs.progress import Listener, progress, warning_listener


def test_lines_say_how_far_a_run_is(monkeypatch):
    """Report 60 s left after 30 of 90 s; the end is not a line."""
    times = iter([0.0, 30.0, 31.0, 90.0])
    monkeypatch.setattr(module.time, "monotonic", lambda: next(times))
    lines = []
    with progress(9, None, Listener(print, print, line=lines.append)) as advance:
        for count in (3, 1, 5):
            advance(count)
    assert lines == ["measuring: 3 of 9 images, 1 min left"]


def test_python_is_warned():
    with pytest.warns(UserWarning, match="out of memory"):
        warning_listener(has_bar=False, is_kept=True).note("out of memory")
    assert warning_listener(has_bar=False, is_kept=True).goes_on == "the same call"
    assert warning_listener(has_bar=False, is_kept=False).goes_on is None
