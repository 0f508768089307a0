"""Damaged files: models, images alone and among good ones, tables of data, and folders of results."""

from __future__ import annotations

import json
import os
import struct
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from tools.bad_input.options import BASES, EVALUATE, HEADS, LONG, PHOTO
from tools.bad_input.rows import Command
from tools.bad_input.world import DAMAGES, photo

OUT = (*PHOTO[2:], "--output", "out")


UNUSED = "weights with one too many"  # without which the model is whole
WROTE = ("out", "results", "heads.png", "*-side-by-side*.png")


def _models() -> list[Command]:
    """A model of each kind of damage with each command: they all load it in one way, so explain tries all of them."""
    rows = []
    for kind in (*DAMAGES, "bert", "headless", "resnet", "pvt", "nan"):
        commands = BASES if kind in (UNUSED, "config a list", "patch size 0", "pvt") else ("explain",)
        for command in commands:
            base = BASES[command]
            words = (*base[:2], "--model", f"MODELS/{kind}", *base[4:])
            if kind == UNUSED:
                rows.append(Command("models", words, "not used", 0, leaves=(*WROTE, "*.png")))
            else:
                leaves = ("results",) if command == "evaluate" else ()
                rows.append(Command("models", words, "--model|cannot be explained|NaN|" + kind, leaves=leaves))
    return rows


def _png(image: Image.Image) -> bytes:
    buffer = BytesIO()
    image.save(buffer, "png")
    return buffer.getvalue()


def _bomb() -> bytes:
    """A PNG that says it is 60000 pixels wide and high, and holds a few bytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"0" * 99)) + chunk(b"IEND", b"")


BROKEN_IMAGES: dict[str, bytes] = {
    "empty.png": b"",
    "text.png": b"text",
    "signature.png": b"\x89PNG\r\n\x1a\n",
    "truncated.png": _png(photo())[:900],
    "bomb.png": _bomb(),
    "page.jpg": b"<html><body>404</body></html>",
    "table.png": b"path,label\n",
    "zeros.jpg": bytes(1000),
    "arrays.png": b"PK\x03\x04" + bytes(100),
}


def _whole_images() -> dict[str, Callable[[Path], None]]:
    """Pictures of unusual kinds that are as good as any."""
    grey = np.linspace(0, 65535, 2400).reshape(40, 60)
    frames = [photo(seed) for seed in range(3)]
    return {
        "16-bit.png": lambda path: Image.fromarray(grey.astype(np.uint16)).save(path),
        "float.tiff": lambda path: Image.fromarray(grey.astype(np.float32)).save(path),
        "cmyk.jpg": lambda path: photo().convert("CMYK").save(path),
        "palette.png": lambda path: photo().convert("P").save(path, transparency=0),
        "transparent.png": lambda path: photo().convert("RGBA").save(path),
        "bits.png": lambda path: photo().convert("1").save(path),
        "animated.gif": lambda path: frames[0].save(path, save_all=True, append_images=frames[1:]),
        "a jpeg.png": lambda path: photo().save(path, "jpeg"),
        "one pixel.png": lambda path: photo(size=(1, 1)).save(path),
        "thin.png": lambda path: photo(size=(2000, 1)).save(path),
        "ü 写真 🐯.png": lambda path: photo().save(path),
        "-dash.png": lambda path: photo().save(path),
        f"{'n' * 240}.png": lambda path: photo().save(path),
    }


def _in_folder(folder: Path, name: str | bytes, content: bytes) -> None:
    path = os.path.join(os.fsencode(folder / "photos"), os.fsencode(name))
    with open(path, "wb") as file:
        file.write(content)


def _images() -> list[Command]:
    rows = []
    for name, content in BROKEN_IMAGES.items():
        alone = lambda folder, name=name, content=content: (folder / name).write_bytes(content)  # noqa: E731
        among = lambda folder, name=name, content=content: _in_folder(folder, name, content)  # noqa: E731
        rows += [
            Command("images", ("explain", name, *PHOTO[2:]), name, 2, alone),
            Command("images", ("compare", name, *BASES["compare"][2:]), name, 2, alone),
            Command("images", ("heads", name, *HEADS[2:]), name, 2, alone),
            Command("images", ("explain", "photos", *OUT), name, 1, among, ("out",)),
            Command("images", ("heads", "photos", *HEADS[2:]), name, 1, among, ("heads.png",)),
        ]
    for name, save in _whole_images().items():
        write = lambda folder, name=name, save=save: save(folder / "photos" / name)  # noqa: E731
        words = ("explain", f"photos/{name}", *OUT)
        rows.append(Command("images", words, "", 0, write, ("out",)))
    latin = lambda folder: _in_folder(folder, b"latin\xe9.png", _png(photo()))  # noqa: E731
    rows += [
        Command("images", ("explain", "photos", *OUT), "", 0, latin, ("out",)),
        Command("images", ("explain", "photos/latin\udce9.png", *OUT), "", 0, latin, ("out",)),
        Command("images", ("heads", "photos", *HEADS[2:]), "", 0, latin, ("heads.png",)),
        Command("images", ("explain", "photos", "none.png", *OUT), "none.png", 1, leaves=("out",)),
        Command("images", ("explain", "-dash.png", *PHOTO[2:]), "-dash.png|-d", 2),
    ]
    return rows


GOOD = {"path": "photos/0.png", "label": 0}
TABLES: dict[str, tuple[str | bytes, str]] = {
    "empty.csv": ("", "empty.csv"),
    "head.csv": ("path,label\n", "head.csv|no images"),
    "nopath.csv": ("picture,label\nphotos/0.png,0\n", "path"),
    "nolabel.csv": ("path,label\nphotos/0.png,\n", "label"),
    "latin.csv": (b"path,label\nphotos/\xe9.png,0\n", "latin.csv"),
    "nul.csv": (b"path,label\nphotos/\x000.png,0\n", "nul.csv|null|NUL|no such|cannot"),
    "binary.csv": (bytes(range(256)), "binary.csv"),
    "long.csv": (f"path,label\n{LONG}.png,0\n", "too long|no such|cannot|x{20}"),
    "field.csv": ("path,label\n" + "x" * 200_000 + ",0\n", "field.csv|too long|limit"),
    "twice.csv": ("path,label\nphotos/0.png,0\nphotos/0.png,0\n", "twice"),
    "missing.csv": ("path,label\nnone.png,0\n", "none.png"),
    "class.csv": ("path,label\nphotos/0.png,notaclass\n", "notaclass"),
    "range.csv": ("path,label\nphotos/0.png,7\n", "7"),
    "short.csv": ('path,label,boxes\nphotos/0.png,0,"[[0, 0, 4]]"\n', "box"),
    "text.csv": ("path,label,boxes\nphotos/0.png,0,somewhere\n", "box"),
    "outside.csv": ('path,label,boxes\nphotos/0.png,0,"[[0, 0, 400, 4]]"\n', "box"),
    "turned.csv": ('path,label,boxes\nphotos/0.png,0,"[[8, 8, 2, 2]]"\n', "box"),
    "nan.csv": ('path,label,boxes\nphotos/0.png,0,"[[0, 0, NaN, 4]]"\n', "box"),
    "mask.csv": ("path,label,mask\nphotos/0.png,0,none.png\n", "none.png"),
    "masktext.csv": ("path,label,mask\nphotos/0.png,0,photos.csv\n", "photos.csv"),
    "maskempty.csv": ("path,label,mask\nphotos/0.png,0,black.png\n", "masks? "),
    "masksize.csv": ("path,label,mask\nphotos/0.png,0,small.png\n", "small.png|mask|size"),
    "object.json": (json.dumps(GOOD), "object.json|list"),
    "numbers.json": ("[1, 2]", "numbers.json|record"),
    "cut.json": (json.dumps([GOOD])[:-4], "cut.json"),
    "empty.json": ("[]", "empty.json|no images"),
    "blank.json": ("", "blank.json"),
    "latin.json": (b'[{"path": "\xe9.png", "label": 0}]', "latin.json"),
    "pathnumber.json": (json.dumps([{"path": 3, "label": 0}]), "path"),
    "labellist.json": (json.dumps([{"path": "photos/0.png", "label": [0]}]), "label"),
    "boxtext.json": (json.dumps([{**GOOD, "boxes": "here"}]), "box"),
    "boxflat.json": (json.dumps([{**GOOD, "boxes": [0, 0, 4, 4]}]), "box"),
    "boxnull.json": (json.dumps([{**GOOD, "boxes": [[0, 0, None, 4]]}]), "box"),
    "masknumber.json": (json.dumps([{**GOOD, "mask": 5}]), "mask"),
    "deep.json": ("[" * 5000 + "]" * 5000, "deep.json"),
    "table.txt": ("path,label\nphotos/0.png,0\n", "table.txt|csv"),
}


def _tables() -> list[Command]:
    def write(name: str, content: str | bytes) -> Callable[[Path], None]:
        def prepare(folder: Path) -> None:
            (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
            photo(size=(60, 40)).point(lambda value: 0).convert("L").save(folder / "black.png")
            photo(size=(6, 4)).convert("L").save(folder / "small.png")

        return prepare

    rows = []
    for name, (content, says) in TABLES.items():
        has_objects = "box" in says or "mask" in name
        options = ("--metrics", "relevance-mass") if has_objects else ("--target", "label")
        status, leaves = int(name != "maskempty.csv") * 2, ("results",)  # which keeps what was left out, and why
        rows.append(
            Command("tables", ("evaluate", name, *EVALUATE[2:], *options), says, status, write(name, content), leaves)
        )
        if not has_objects and name != "table.txt":
            rows.append(Command("tables", ("heads", name, *HEADS[2:], *options), says, 2, write(name, content)))
    broken = "path,label\nphotos/0.png,0\nphotos/bad.png,0\n"
    some = lambda folder: [_in_folder(folder, "bad.png", b"text"), (folder / "some.csv").write_text(broken)]  # noqa: E731
    classes = lambda folder: (folder / "classes" / "0" / "bad.png").write_bytes(b"text")  # noqa: E731
    rows += [
        Command("tables", ("evaluate", "some.csv", *EVALUATE[2:]), "bad.png", 1, some, ("results",)),
        Command("tables", ("heads", "some.csv", *HEADS[2:]), "bad.png", 1, some, ("heads.png",)),
        Command("tables", ("evaluate", "classes", *EVALUATE[2:]), "bad.png", 1, classes, ("results",)),
        Command("tables", ("heads", "classes", *HEADS[2:]), "bad.png", 1, classes, ("heads.png",)),
        Command(
            "tables", ("evaluate", "folder.csv", *EVALUATE[2:]), "folder.csv", 2, lambda f: (f / "folder.csv").mkdir()
        ),
    ]
    return rows


def _results() -> list[Command]:
    """Folders of results that hold something else, or what is left of a run."""

    def holding(name: str, content: str | bytes) -> Callable[[Path], None]:
        def prepare(folder: Path) -> None:
            path = folder / "results" / name
            path.parent.mkdir(parents=True)
            path.write_bytes(content.encode() if isinstance(content, str) else content)

        return prepare

    heads = (*HEADS[:-1], "results")
    other = json.dumps({"settings": {"model": "another"}, "versions": {}})
    rows = []
    for base in (EVALUATE, heads):
        for content in ("text", b"\xff\xfe", other):
            # Nothing was measured by these settings, so nothing is lost where others follow.
            rows.append(Command("results", base, "", 0, holding("settings.json", content), ("results",)))
        rows += [
            Command("results", base, "results", 2, holding("journal", "a file where a folder must be")),
            Command("results", base, "results", 2, holding("notes.txt", "of the user")),
        ]
    return rows


ROWS = [*_models(), *_images(), *_tables(), *_results()]
