"""How long drawing takes of explaining a folder of photos: CPU time, of one process.

    python -m benchmarks.drawing PHOTOS MODEL [--count 1000] [--methods gmar-l1]

Copies the photos of a folder until there are so many, runs ``captum-gmar explain`` on them, and prints the seconds that
making and saving the pictures took, apart from reading and explaining.
"""

import argparse
import os
import shutil
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from itertools import cycle, islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from captum_gmar.cli import explain_images
from captum_gmar.cli.main import main as captum_gmar
from captum_gmar.files.images import list_images

DRAWING = ("draw", "save_picture")  # what explain calls to make pictures


class Clock:
    """CPU seconds within the functions that it goes round."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def around(self, work: Callable[..., Any]) -> Callable[..., Any]:
        """The function, whose time counts."""

        def timed(*arguments: Any) -> Any:
            begin = time.process_time()
            try:
                return work(*arguments)
            finally:
                self.seconds += time.process_time() - begin

        return timed


def copy_photos(photos: Path, folder: Path, count: int) -> None:
    """So many photos, each of the folder's in turn."""
    for number, path in enumerate(islice(cycle(list_images(photos)), count)):
        shutil.copy(path, folder / f"{number:05}{path.suffix}")


def measure(photos: Path, model: str, count: int, methods: str) -> tuple[float, float]:
    """CPU seconds of drawing, and of all the command."""
    clock = Clock()
    for name in DRAWING:
        setattr(explain_images, name, clock.around(getattr(explain_images, name)))
    with TemporaryDirectory() as place:
        folder = Path(place, "photos")
        folder.mkdir()
        copy_photos(photos, folder, count)
        begin = time.process_time()
        with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
            status = captum_gmar(
                ["explain", str(folder), "--model", model, "--methods", methods, "--output", f"{place}/out/"]
            )
        whole = time.process_time() - begin
        drawn = len(list(Path(place, "out").iterdir()))
    if status or drawn != count:
        raise SystemExit(f"explain ended with status {status} and {drawn} of {count} pictures")
    return clock.seconds, whole


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.drawing")
    parser.add_argument("photos", type=Path)
    parser.add_argument("model")
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--methods", default="gmar-l1")
    arguments = parser.parse_args()
    drawing, whole = measure(arguments.photos, arguments.model, arguments.count, arguments.methods)
    print(f"{arguments.count} pictures: drawn in {drawing:.1f} s, {1000 * drawing / arguments.count:.0f} ms each")
    print(f"all the command: {whole:.1f} s (CPU time)")


if __name__ == "__main__":
    main()
