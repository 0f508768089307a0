"""Drawing many pictures in processes beside the one that explains."""

import multiprocessing
import os
import signal
from collections.abc import Callable
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from captum_gmar.cli.matplotlib_settings import default_drawing
from captum_gmar.files.writing import save_picture

if TYPE_CHECKING:
    from captum_gmar.cli.image_picture import ImagePicture

WORTH_A_PROCESS = 40  # pictures; its start takes as long as to draw some twenty
MOST_PROCESSES = 4

Arguments = ParamSpec("Arguments")
Returned = TypeVar("Returned")


class DrawingHere(Executor):
    """Draws at once, in this process."""

    def submit(
        self, fn: Callable[Arguments, Returned], /, *args: Arguments.args, **kwargs: Arguments.kwargs
    ) -> Future[Returned]:
        """What the call returned or raised."""
        future: Future[Returned] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


def open_drawing(pictures: int) -> Executor:
    """What draws so many pictures: many of them are drawn while the next images are explained."""
    processes = min(MOST_PROCESSES, os.cpu_count() or 1)
    if pictures < WORTH_A_PROCESS or processes == 1:
        return DrawingHere()
    # Started anew, as a copy of a process in which torch has threads may stand still.
    return ProcessPoolExecutor(processes, multiprocessing.get_context("spawn"), _end_with_parent)


def draw_and_save(picture: "ImagePicture", path: Path) -> None:
    """Draws a picture into a file.

    Raises:
        OSError: if it cannot be written.
    """
    with default_drawing():
        save_picture(picture.draw(), path)


def _end_with_parent() -> None:
    """An interrupt is the parent's matter, and a parent that is killed leaves nobody behind."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Thread(target=_wait_for_parent, daemon=True).start()


def _wait_for_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
    os._exit(1)
