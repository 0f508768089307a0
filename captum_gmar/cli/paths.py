"""The files that a command reads and writes, checked before any work."""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from zlib import crc32

from captum_gmar.cli.options import Top
from captum_gmar.cli.terminal import CommandError, report
from captum_gmar.files.names import check_file, fit_name, readable_name, safe_name

FORMATS = ["png", "jpg", "jpeg", "pdf", "svg"]  # of pictures, the first where none is named
FILMS = ["gif", "mp4"]
PAGES = ["html"]
TABLES = ["csv", "json", "md"]
MOST_NAMED = 4  # methods in the name of a picture
COMPARISON_MARK = "side-by-side"  # what the names of comparisons end in
LONGEST_MARK = 100  # bytes of a question in the name of a picture
OF_NO_PICTURE = ("batch_size", "with_heads")  # settings that leave pictures as they are


def find_images(arguments: Iterable[str], kind: str = "image") -> tuple[list[Path], int]:
    """Find the files that the arguments name, each once, and in folders those of the kind "image", "video" or "sound".

    Return how many arguments name none as well; these are reported.
    """
    images: dict[Path, None] = {}
    failed = 0
    for argument in map(Path, arguments):
        try:
            images |= dict.fromkeys(_files_of(argument, kind))
        except OSError as error:
            report(error)
            failed += 1
    return list(images), failed


def _files_of(path: Path, kind: str) -> list[Path]:
    if not path.is_dir():
        check_file(path, f"{'an' if kind == 'image' else 'a'} {kind} file")
        return [path]
    from captum_gmar.files.images import list_files, list_images
    from captum_gmar.files.videos import SUFFIXES
    from captum_gmar.files.writing import is_picture

    suffixes = {"video": SUFFIXES, "sound": (".wav",)}
    files = list_files(path, suffixes[kind]) if kind in suffixes else list_images(path)
    inputs = [file for file in files if not is_picture(file)]  # of an earlier run, in the same folder
    if not inputs:
        raise OSError(
            f"{_folder(path)} must hold {kind} files, but holds {'pictures of explanations' if files else 'none'}."
        )
    return inputs


def picture_mark(*parts: str) -> str:
    """Return the end of pictures' names for a question. It has a short hash if the name cannot hold all of the parts,
    such as their case and punctuation.

    >>> picture_mark("tiger cat", "", "rather than zebra")
    'tiger-cat-rather-than-zebra'
    >>> picture_mark("A cat?")
    'A-cat-29b43f5b'
    """
    given = list(filter(None, parts))
    mark = "-".join(map(safe_name, given))
    if len(mark) <= LONGEST_MARK and all(map(_is_kept, given)):
        return mark
    return f"{safe_name(mark, LONGEST_MARK)}-{_hash(chr(0).join(given))}"


def _is_kept(part: str) -> bool:
    """Return whether no other text has the same safe name."""
    return part.isascii() and part == part.lower() and "-" not in part and safe_name(part) == part.replace(" ", "-")


def _hash(text: str) -> str:
    return f"{crc32(os.fsencode(text)):08x}"


def comparison_mark(mark: str, methods: Sequence[str], usual: Sequence[str] = ()) -> str:
    """Return the end of pictures' names for several methods: their names or, for many, their number; neither if usual.

    >>> comparison_mark("comparison", ["gmar-l1", "rollout"])
    'comparison-gmar-l1-rollout'
    """
    if list(methods) == list(usual):
        return mark
    if len(methods) > MOST_NAMED:
        return f"{mark}-{len(methods)}-methods-{_hash(','.join(methods))}"
    return "-".join([mark, *methods])


class PictureFile(NamedTuple):
    """The path of a picture or page, and all its settings, which are noted in the file."""

    path: Path
    note: str

    @property
    def kind(self) -> str:
        """Kind of the file, by the end of its name."""
        suffix = self.path.suffix[1:].lower()
        return "film" if suffix in FILMS else "page" if suffix in PAGES else "picture"


def plan_pictures(
    images: Sequence[Path], output: str | None, mark: str, settings: Mapping[str, Any], formats: Sequence[str] = FORMATS
) -> list[PictureFile]:
    """Plan the path of each image's picture. No two share a name and none replaces an image.

    A picture that is named here replaces only a picture of the same image with the same settings. ``output`` is the
    file, or a folder for files in the first of the ``formats``, named after the images with ``mark``.
    """
    output = "." if output is None else output
    is_folder = output.endswith(("/", os.sep)) or Path(output).is_dir()
    if is_folder:
        pictures = _names(images, Path(output), f"{mark}.{formats[0]}")
        _check_makeable(Path(output))
    elif len(images) > 1:
        raise CommandError(
            f"--output must be a folder for {len(images)} images, new ones with a / at the end, but got {output!r}."
        )
    else:
        pictures = [Path(output)]
        _check_file(Path(output), formats, "--output")
    for picture in pictures:
        _check_replaceable(picture)
    files = {os.path.realpath(image) for image in images}
    for picture in pictures:
        if os.path.realpath(picture) in files:
            raise CommandError(f"--output must not be the image itself, but got {readable_name(picture)!r}.")
    planned = [
        PictureFile(picture, _note({"image": image, **settings}, picture.parent))
        for image, picture in zip(images, pictures, strict=True)
    ]
    for file in planned if is_folder else ():
        _check_same(file)
    return planned


def _note(settings: Mapping[str, Any], folder: Path) -> str:
    """Return settings as JSON: files and folders by their names and a hash of their paths from the folder."""

    def name_value(value: Any) -> Any:
        if not isinstance(value, Path):
            return str(value) if isinstance(value, Top) else value
        if not value.exists():  # a model of the hub, or what is built in
            return str(value)
        seen = os.path.relpath(os.path.realpath(value), os.path.realpath(folder))
        return f"{Path(seen).name} ({_hash(seen)})"

    given = {name: value for name, value in settings.items() if value not in (None, "", ())}
    return json.dumps({name: name_value(value) for name, value in given.items() if name not in OF_NO_PICTURE})


def _check_same(picture: PictureFile) -> None:
    """Raise a CommandError if the file exists with other settings."""
    from captum_gmar.files.writing import read_note

    if not picture.path.exists():
        return
    name, wanted = readable_name(picture.path), json.loads(picture.note)
    try:
        noted = dict(json.loads(read_note(picture.path) or ""))
    except ValueError:
        raise CommandError(f"{name} cannot be replaced: it does not say of what it is a picture. Move it.") from None
    if noted == wanted:
        return
    changed = next(key for key in (*wanted, *noted) if wanted.get(key) != noted.get(key))
    raise CommandError(
        f"{name} cannot be replaced: it is a picture with {changed} {_as_text(noted.get(changed))} and not "
        f"{_as_text(wanted.get(changed))}. Pass another --output, or move it."
    )


def _as_text(value: Any) -> str:
    return "none" if value is None else value if isinstance(value, str) else json.dumps(value)


def plan_file(path: str | None, suffixes: Sequence[str], option: str) -> Path | None:
    """Check and return the path that an option names, if any."""
    if path is None:
        return None
    _check_file(Path(path), suffixes, option)
    _check_replaceable(Path(path))
    return Path(path)


def _names(images: Sequence[Path], folder: Path, ending: str) -> list[Path]:
    names: dict[str, Path] = {}
    for image in images:
        name, count = fit_name(image.stem, f"-{ending}"), 1
        while name.casefold() in names:  # images of one stem, from two folders or in two formats
            count += 1
            name = fit_name(image.stem, f"-{count}-{ending}")
        names[name.casefold()] = folder / name
    return list(names.values())


def _check_file(path: Path, suffixes: Sequence[str], option: str) -> None:
    if "\0" in str(path):
        raise CommandError(f"{option} must hold no null character, but got {readable_name(path)!r}.")
    if path.suffix[1:].lower() not in suffixes:
        raise CommandError(f"{option} must end in one of .{', .'.join(suffixes)}, but got {readable_name(path)!r}.")
    if not path.parent.is_dir():
        raise CommandError(
            f"{readable_name(path.parent)} cannot be written: no folder for {readable_name(path.name)}. Make it."
        )
    _check_makeable(path.parent)


def _check_makeable(folder: Path) -> None:
    """Check that files can be written to the folder, or that it can be made."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    if not folder.is_dir():
        raise CommandError(f"{readable_name(folder)} cannot be written: it is a file, no folder. Choose another name.")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise CommandError(f"{_folder(folder)} cannot be written: it is read-only. Choose another folder.")


def _check_replaceable(path: Path) -> None:
    if path.is_dir():
        raise CommandError(f"{readable_name(path)} cannot be written: it is a folder, not a file. Choose another name.")
    if path.exists() and not os.access(path, os.W_OK):
        raise CommandError(f"{readable_name(path)} cannot be written: it is read-only. Choose another name.")


def _folder(path: Path) -> str:
    """Return a folder's name, even for the current one."""
    return readable_name(path.absolute() if path == Path() else path)
