"""Which files a command reads and writes, checked before any work is done."""

import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from captum_gmar.cli.terminal import CommandError, report
from captum_gmar.files.writing import SOFTWARE, save_picture

__all__ = ["save_picture"]

FORMATS = ["png", "jpg", "jpeg", "pdf", "svg"]
TABLES = ["csv", "json", "md"]


def find_images(arguments: Iterable[str]) -> tuple[list[Path], int]:
    """The image files that the arguments name, each once, and how many arguments name none, which are reported."""
    found: dict[Path, None] = {}
    failed = 0
    for argument in map(Path, arguments):
        try:
            found |= dict.fromkeys(_images_of(argument))
        except OSError as error:
            report(error)
            failed += 1
    return list(found), failed


def _images_of(path: Path) -> list[Path]:
    if not path.is_dir():
        if not path.exists():
            raise OSError(f"{path}: no such file")
        return [path]
    from captum_gmar.files.images import list_images

    found = list_images(path)
    images = [image for image in found if not _is_picture(image)]  # of an earlier run, in the same folder
    if not images:
        raise OSError(f"{path}: no image files in this folder{' but pictures of explanations' if found else ''}")
    return images


def _is_picture(path: Path) -> bool:
    """Whether it is a picture that the command has made, by what is noted in it: names are the user's."""
    if path.suffix.lower() != ".png":
        return False
    from PIL import Image

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # reading it, if it comes to that, tells more
        try:
            with Image.open(path) as image:
                return image.info.get("Software") == SOFTWARE
        except Exception:  # whatever a damaged file makes of Pillow's reader
            return False


def plan_pictures(images: Sequence[Path], output: str | None, mark: str) -> list[Path]:
    """Where the picture of each image goes. No two share a name and none replaces an image.

    Args:
        images: that are explained.
        output: the file, or the folder of files named after the images.
        mark: what their names end in.

    Raises:
        CommandError: if a file cannot be written there, or its suffix is none of FORMATS.
    """
    output = output or "."
    if output.endswith(("/", os.sep)) or Path(output).is_dir():
        pictures = _names(images, Path(output), mark)
    elif len(images) > 1:
        raise CommandError(f"--output must be an existing folder for {len(images)} images. Got {output!r} instead.")
    else:
        pictures = [Path(output)]
        _check_suffix(Path(output), FORMATS, "--output")
    for picture in pictures:
        _check_writable(picture)
    taken = {os.path.realpath(image) for image in images}
    for picture in pictures:
        if os.path.realpath(picture) in taken:
            raise CommandError(f"--output must not be the image itself. Got {str(picture)!r} instead.")
    return pictures


def plan_array(path: str | None) -> Path | None:
    """Where the arrays go, if anywhere."""
    if path is None:
        return None
    _check_suffix(Path(path), ["npz"], "--save-array")
    _check_writable(Path(path))
    return Path(path)


def plan_table(path: str | None) -> Path | None:
    """Where the table goes, if anywhere."""
    if path is None:
        return None
    _check_suffix(Path(path), TABLES, "--save-table")
    _check_writable(Path(path))
    return Path(path)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """The former name of what :func:`captum_gmar.files.writing.replacing` does by itself."""
    yield


def _names(images: Sequence[Path], folder: Path, mark: str) -> list[Path]:
    names: dict[str, Path] = {}
    for image in images:
        name, count = f"{image.stem}-{mark}.png", 1
        while name.casefold() in names:  # images of one stem, from two folders or in two formats
            count += 1
            name = f"{image.stem}-{count}-{mark}.png"
        names[name.casefold()] = folder / name
    return list(names.values())


def _check_suffix(path: Path, suffixes: Sequence[str], option: str) -> None:
    if path.suffix[1:].lower() not in suffixes:
        raise CommandError(f"{option} must end in one of .{', .'.join(suffixes)}. Got {str(path)!r} instead.")


def _check_writable(path: Path) -> None:
    folder = path.parent
    if not folder.is_dir():
        raise CommandError(f"{folder}: no such folder to write {path.name} to")
    if path.is_dir():
        raise CommandError(f"{path}: is a folder, and a file of this name is to be written")
    for place in (folder, path):
        if place.exists() and not os.access(place, os.W_OK):
            raise CommandError(f"{place}: is read-only")
