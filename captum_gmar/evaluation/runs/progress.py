"""Progress of a run."""

import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from tqdm import tqdm

SECONDS_APART = 30.0  # of lines of progress


class Listener(NamedTuple):
    """Receiver of the messages of a run."""

    note: Callable[[str], None]  # of the unexpected
    skip: Callable[[str], None]  # of an image that is left out, and why
    has_bar: bool = False  # a progress bar on stderr
    line: Callable[[str], None] | None = None  # of progress, now and then, where there is no bar
    goes_on: str | None = None  # what continues an interrupted run; None: nothing does


def warning_listener(has_bar: bool, is_kept: bool) -> Listener:
    """Return a listener that reports through `warnings`; ``is_kept``: the same call continues an interrupted run."""
    return Listener(
        note=lambda text: warnings.warn(text, stacklevel=2),
        skip=lambda text: None,  # the end of the run warns of all
        has_bar=has_bar,
        goes_on="the same call" if is_kept else None,
    )


@contextmanager
def progress(total: int, name: str | None, listener: Listener) -> Iterator[Callable[[int], None]]:
    """Yield a function that takes how many more images are done."""
    begin = last = time.monotonic()
    done = 0

    def advance(count: int) -> None:
        nonlocal done, last
        done += count
        bar.update(count)
        now = time.monotonic()
        if listener.line and now - last >= SECONDS_APART and done < total:
            last = now
            rest = _time_left(now - begin, done, total)
            listener.line(f"{name or 'measuring'}: {done} of {total} images, {rest} left")

    with tqdm(total=total, desc=name, unit="image", disable=not listener.has_bar) as bar:
        yield advance


def _time_left(seconds: float, done: int, total: int) -> str:
    """Return the time left.

    >>> _time_left(60.0, 30, 60), _time_left(600.0, 10, 100)
    ('1 min', '1 h 30 min')
    """
    minutes = max(1, round(seconds / done * (total - done) / 60))
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"


def count(number: int, name: str = "image") -> str:
    """Return a number with its noun.

    >>> count(1), count(2)
    ('1 image', '2 images')
    """
    return f"{number} {name}{'' if number == 1 else 's'}"
