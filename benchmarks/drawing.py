"""How long drawing takes beside explaining a folder of photos: of the clock, with and without it.

    python -m benchmarks.drawing PHOTOS MODEL [--count 1000] [--methods gmar-l1]

Copies the photos of a folder until there are so many, runs ``captum-gmar explain`` on them as a user does, and again
with pictures that are files of nothing, and prints how many seconds drawing takes longer.
"""

import argparse
import shutil
import subprocess
import sys
import time
from itertools import cycle, islice
from pathlib import Path
from tempfile import TemporaryDirectory

from captum_gmar.files.images import list_images

DRAWN = "from captum_gmar.cli.main import main; raise SystemExit(main())"
NOT_DRAWN = f"""
from captum_gmar.cli import explain_images, image_picture
image_picture.ImagePicture.draw = lambda picture: None
explain_images.save_picture = lambda figure, path, note: (path.parent.mkdir(exist_ok=True), path.touch())
{DRAWN}
"""


def copy_photos(photos: Path, folder: Path, count: int) -> None:
    """So many photos, each of the folder's in turn."""
    folder.mkdir()
    for number, path in enumerate(islice(cycle(list_images(photos)), count)):
        shutil.copy(path, folder / f"{number:05}{path.suffix}")


def measure(program: str, photos: Path, model: str, methods: str, output: Path) -> float:
    """Seconds of the whole command."""
    options = ["explain", str(photos), "--model", model, "--methods", methods, "--output", f"{output}/"]
    begin = time.perf_counter()
    subprocess.run([sys.executable, "-c", program, *options], stdout=subprocess.DEVNULL, check=True)
    seconds = time.perf_counter() - begin
    count, pictures = len(list_images(photos)), len(list(output.iterdir()))
    if pictures != count:
        raise SystemExit(f"explain wrote {pictures} pictures of {count}")
    return seconds


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.drawing")
    parser.add_argument("photos", type=Path)
    parser.add_argument("model")
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--methods", default="gmar-l1")
    arguments = parser.parse_args()
    with TemporaryDirectory() as place:
        photos = Path(place, "photos")
        copy_photos(arguments.photos, photos, arguments.count)
        drawn, alone = (
            measure(program, photos, arguments.model, arguments.methods, Path(place, name))
            for name, program in (("drawn", DRAWN), ("not-drawn", NOT_DRAWN))
        )
    print(f"{arguments.count} photos: {drawn:.1f} s with pictures, {alone:.1f} s without: {drawn - alone:.1f} s longer")


if __name__ == "__main__":
    main()
