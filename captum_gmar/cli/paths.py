"""Which files a command reads and writes, checked before any work is done."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from zlib import crc32

from captum_gmar.cli.terminal import CommandError, report
from captum_gmar.files.names import fitting, readable, safe

FORMATS = ["png", "jpg", "jpeg", "pdf", "svg"]  # of pictures, the first where none is named
FILMS = ["gif", "mp4"]
PAGES = ["html"]
TABLES = ["csv", "json", "md"]
MOST_NAMED = 4  # methods in the name of a picture


def find_images(arguments: Iterable[str]) -> tuple[list[Path], int]:
    """The image files that the arguments name, each once, and how many arguments name none, which are reported."""
    images: dict[Path, None] = {}
    failed = 0
    for argument in map(Path, arguments):
        try:
            images |= dict.fromkeys(_images_of(argument))
        except OSError as error:
            report(error)
            failed += 1
    return list(images), failed


def _images_of(path: Path) -> list[Path]:
    if not path.is_dir():
        if not path.exists():
            raise OSError(f"{readable(path)}: no such file")
        return [path]
    from captum_gmar.files.images import list_images
    from captum_gmar.files.writing import is_picture

    files = list_images(path)
    images = [file for file in files if not is_picture(file)]  # of an earlier run, in the same folder
    if not images:
        raise OSError(
            f"{_folder(path)}: no image files in this folder{' but pictures of explanations' if files else ''}"
        )
    return images


def picture_mark(*parts: str) -> str:
    """What the names of pictures end in, of a method and of the question to it, where that is not the usual one.

    >>> picture_mark("gmar-l1", "tiger cat", "", "rather than zebra")
    'gmar-l1-tiger-cat-rather-than-zebra'
    """
    return "-".join(filter(None, map(safe, parts)))


def comparison_mark(mark: str, methods: Sequence[str], usual: Sequence[str] = (), kind: str = "methods") -> str:
    """Of pictures of several methods: which they are, unless they are those that are usual; of many, a number instead.

    The same of other names, which ``kind`` is the word for.

    >>> comparison_mark("comparison", ["gmar-l1", "rollout"])
    'comparison-gmar-l1-rollout'
    """
    if list(methods) == list(usual):
        return mark
    if len(methods) > MOST_NAMED:
        return f"{mark}-{len(methods)}-{kind}-{crc32(','.join(methods).encode()):08x}"
    return "-".join([mark, *methods])


def plan_pictures(
    images: Sequence[Path], output: str | None, mark: str, formats: Sequence[str] = FORMATS
) -> list[Path]:
    """Where the picture of each image goes. No two share a name and none replaces an image.

    Args:
        images: that are explained.
        output: the file, or the folder of files named after the images, which is made if it ends in a slash.
        mark: what their names end in.
        formats: what the file may be, the first of which those in a folder are.

    Raises:
        CommandError: if a file cannot be written there, or its suffix is none of the formats.
    """
    output = "." if output is None else output
    if output.endswith(("/", os.sep)) or Path(output).is_dir():
        pictures = _names(images, Path(output), f"{mark}.{formats[0]}")
        _check_makeable(Path(output))
    elif len(images) > 1:
        raise CommandError(
            f"--output must be a folder for {len(images)} images, with a / at its end if it is new. Got {output!r} "
            "instead."
        )
    else:
        pictures = [Path(output)]
        _check_file(Path(output), formats, "--output")
    for picture in pictures:
        _check_replaceable(picture)
    files = {os.path.realpath(image) for image in images}
    for picture in pictures:
        if os.path.realpath(picture) in files:
            raise CommandError(f"--output must not be the image itself. Got {readable(picture)!r} instead.")
    return pictures


def plan_array(path: str | None) -> Path | None:
    """Where the arrays go, if anywhere."""
    return _plan_file(path, ["npz"], "--save-array")


def plan_table(path: str | None) -> Path | None:
    """Where the table goes, if anywhere."""
    return _plan_file(path, TABLES, "--save-table")


def _plan_file(path: str | None, suffixes: Sequence[str], option: str) -> Path | None:
    if path is None:
        return None
    _check_file(Path(path), suffixes, option)
    _check_replaceable(Path(path))
    return Path(path)


def _names(images: Sequence[Path], folder: Path, ending: str) -> list[Path]:
    names: dict[str, Path] = {}
    for image in images:
        name, count = fitting(image.stem, f"-{ending}"), 1
        while name.casefold() in names:  # images of one stem, from two folders or in two formats
            count += 1
            name = fitting(image.stem, f"-{count}-{ending}")
        names[name.casefold()] = folder / name
    return list(names.values())


def _check_file(path: Path, suffixes: Sequence[str], option: str) -> None:
    if "\0" in str(path):
        raise CommandError(f"{option} must hold no null character. Got {readable(path)!r} instead.")
    if path.suffix[1:].lower() not in suffixes:
        raise CommandError(f"{option} must end in one of .{', .'.join(suffixes)}. Got {readable(path)!r} instead.")
    if not path.parent.is_dir():
        raise CommandError(f"{readable(path.parent)}: no such folder to write {readable(path.name)} to")
    _check_makeable(path.parent)


def _check_makeable(folder: Path) -> None:
    """That files can be written to the folder, or that it can be made."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    if not folder.is_dir():
        raise CommandError(f"{readable(folder)}: is a file, and a folder of this name is needed")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise CommandError(f"{_folder(folder)}: is read-only")


def _check_replaceable(path: Path) -> None:
    if path.is_dir():
        raise CommandError(f"{readable(path)}: is a folder, and a file of this name is to be written")
    if path.exists() and not os.access(path, os.W_OK):
        raise CommandError(f"{readable(path)}: is read-only")


def _folder(path: Path) -> str:
    """A folder's name, also of the current one."""
    return readable(path.absolute() if path == Path() else path)
