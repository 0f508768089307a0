"""The images that are evaluated, as a folder, a table or a data set on disk names them."""

import csv
import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image

from captum_gmar.files.images import list_images, read_image
from captum_gmar.metrics import boxes_to_masks

Box: TypeAlias = tuple[float, float, float, float]  # x0, y0, x1, y1 in pixels of the image as it is seen

PATH_NAMES = ("path", "file", "file_name")  # of the column that holds it
FORMS = (
    "a folder with a subfolder of images per class, a .csv file or a .json list of records with path and label, or a "
    "folder that the `datasets` library has saved"
)


@dataclass(frozen=True)
class Example:
    """One image, and what is known of it."""

    name: str  # as the data names it
    label: str | None
    read: Callable[[], Image.Image]
    boxes: tuple[Box, ...] = ()
    mask: Callable[[], Image.Image | None] | None = None  # reads it
    mask_name: str | None = None  # as the data names it

    @property
    def has_object(self) -> bool:
        """Whether it is known where the object is."""
        return bool(self.boxes) or self.mask is not None

    def known(self) -> tuple[Any, ...]:
        """All that is known of it, to tell whether data is the same."""
        masked = (self.mask_name,) if self.mask_name else ()
        return self.name, self.label, self.boxes, *masked

    def read_mask(self, width: int, height: int) -> Image.Image | None:
        """White on the object, black elsewhere, of the size of the image; None if it is not known where that is.

        Raises:
            OSError: if the mask cannot be read.
            ValueError: if the mask is of another size, or a box does not fit the image.
        """
        mask = self.mask() if self.mask else None
        if mask is None:
            return _drawn(self.boxes, width, height) if self.boxes else None
        if mask.size != (width, height):
            raise ValueError(f"its mask is of {mask.width}x{mask.height} pixels and the image of {width}x{height}")
        return _black_and_white(mask)


def is_data_set(data: Path) -> bool:
    """Whether it looks like what :func:`read_examples` reads, and not like an image or a folder of images."""
    if not data.is_dir():
        return data.suffix.lower() in (".csv", ".json")
    return _is_saved(data) or (not list_images(data) and any(list_images(own) for own in _class_folders(data)))


def read_examples(data: Path) -> list[Example]:
    """
    The examples of a folder with class subfolders, of a CSV file, of a JSON list or of a saved data set, in that order.

    Raises:
        OSError: if there is no such file or folder, or it cannot be read.
        ValueError: if it does not hold examples in one of these forms.
    """
    if data.is_dir():
        examples = _of_data_set(data) if _is_saved(data) else _of_folder(data)
    else:
        examples = [_of_record(record, data) for record in read_records(data)]
    if not examples:
        raise ValueError(f"{data}: no images. Expected {FORMS}.")
    _check_distinct(examples, data)
    return examples


def of_images(paths: Iterable[Path]) -> list[Example]:
    """Image files, of which nothing is known."""
    return [Example(str(path), None, partial(read_image, path)) for path in paths]


def with_objects(examples: Sequence[Example], table: Path) -> list[Example]:
    """The examples with the boxes or masks that a table gives for their paths.

    Raises:
        OSError: if the table cannot be read.
        ValueError: if it gives none for any of the examples.
    """
    known = [_of_record(record, table) for record in read_records(table)]
    _check_distinct(known, table)
    by_file: dict[str, list[Example]] = {}
    for own in known:
        by_file.setdefault(Path(own.name).name, []).append(own)
    files = Counter(Path(example.name).name for example in examples)
    matched = [_match(example, by_file, files, table) for example in examples]
    if not any(own is not None and own.has_object for own in matched):
        raise ValueError(f"{table}: no boxes or masks for the paths of the images, such as {examples[0].name!r}.")
    return [example if own is None else _joined(example, own) for example, own in zip(examples, matched, strict=True)]


def _match(
    example: Example, by_file: Mapping[str, Sequence[Example]], files: Mapping[str, int], table: Path
) -> Example | None:
    """What a table knows of an example: by its file's name where that is the only one, else by its folders as well."""
    path = Path(example.name)
    found = by_file.get(path.name, ())
    if len(found) > 1 or files[path.name] > 1:
        found = [own for own in found if _ends_alike(path, Path(own.name))]
    if len(found) > 1:
        names = " and ".join(repr(own.name) for own in found[:2])
        raise ValueError(f"{table}: {names} may both be {example.name!r}. Give the paths as the images have them.")
    return found[0] if found else None


def _ends_alike(path: Path, other: Path) -> bool:
    """Whether the folders agree as far as both name them, the last one at least."""
    shared = min(len(path.parts), len(other.parts))
    return shared > 1 and path.parts[-shared:] == other.parts[-shared:]


def _joined(example: Example, own: Example) -> Example:
    boxes = own.boxes or example.boxes
    if own.mask is None:
        return replace(example, boxes=boxes)
    return replace(example, boxes=boxes, mask=own.mask, mask_name=own.mask_name)


def read_records(table: Path) -> list[dict[str, Any]]:
    """The records of a CSV or JSON file.

    Raises:
        OSError: if there is no such file.
        ValueError: if it cannot be read as that.
    """
    if not table.is_file():
        raise OSError(f"{table}: no such file or folder")
    try:
        text = table.read_text(encoding="utf-8-sig")
        if table.suffix.lower() == ".csv":
            records: Any = list(csv.DictReader(text.splitlines()))
        elif table.suffix.lower() == ".json":
            records = json.loads(text)
        else:
            raise ValueError("its name ends in neither .csv nor .json")
        if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
            raise ValueError("it is no list of records")
    except ValueError as error:  # of the text's encoding and of JSON as well
        raise ValueError(f"{table}: cannot be read: {error}. Expected {FORMS}.") from error
    return records


def _is_saved(folder: Path) -> bool:
    """Whether the `datasets` library has saved it."""
    return any((folder / name).is_file() for name in ("state.json", "dataset_info.json", "dataset_dict.json"))


def _class_folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _of_folder(folder: Path) -> list[Example]:
    return [
        Example(f"{own.name}/{image.name}", own.name, partial(read_image, image))
        for own in _class_folders(folder)
        for image in list_images(own)
    ]


def _of_record(record: Mapping[str, Any], table: Path) -> Example:
    """Of a row of a table; its paths are absolute or relative to the table."""
    path = next((record[name] for name in PATH_NAMES if record.get(name)), None)
    if not isinstance(path, str):
        raise ValueError(f"{table}: a record must have a path. Got {_shown(record)} instead.")
    label = record.get("label")
    mask = record.get("mask") or None
    return Example(
        path,
        None if label is None or label == "" else str(label),
        partial(read_image, table.parent / path),
        _boxes(record.get("boxes"), f"{table}: {path}"),
        None if mask is None else partial(_read_mask, table.parent / str(mask)),
        None if mask is None else str(mask),
    )


def _of_data_set(folder: Path) -> list[Example]:
    try:
        from datasets import Dataset, load_from_disk
    except ImportError as error:
        raise ValueError(
            f"{folder}: a data set saved by the `datasets` library, which is not installed. "
            'Install it: pip install "captum_gmar[datasets]".'
        ) from error
    rows = load_from_disk(str(folder))
    if not isinstance(rows, Dataset):
        raise ValueError(f"{folder}: holds several splits. Pass the folder of one: {', '.join(map(str, rows))}.")
    if "image" not in rows.column_names:
        raise ValueError(f"{folder}: must have a column image. Got {', '.join(rows.column_names)} instead.")
    names = getattr(rows.features.get("label"), "names", None)
    others = rows.select_columns([name for name in ("label", "boxes") if name in rows.column_names])
    has_mask = "mask" in rows.column_names

    def example(number: int) -> Example:
        record = others[number] if others.column_names else {}
        label = record.get("label")
        return Example(
            f"row {number}",
            None if label is None else str(names[label] if names else label),
            partial(_row_image, rows, number),
            _boxes(record.get("boxes"), f"{folder}: row {number}"),
            (lambda: rows[number]["mask"]) if has_mask else None,
            "mask" if has_mask else None,
        )

    return [example(number) for number in range(len(rows))]


def _row_image(rows: Any, number: int) -> Image.Image:
    image = rows[number]["image"]
    if image is None:
        raise ValueError("it has no image")
    return image.convert("RGB")  # type: ignore[no-any-return]


def _boxes(boxes: Any, place: str) -> tuple[Box, ...]:
    """Of a list of boxes, or the JSON text of one."""
    if boxes is None or boxes == "":
        return ()
    try:
        rows = json.loads(boxes) if isinstance(boxes, str) else boxes
        found = tuple(tuple(map(float, box)) for box in rows)
    except (TypeError, ValueError):
        found = ((),)
    if not all(len(box) == 4 and all(map(math.isfinite, box)) for box in found):
        raise ValueError(f"{place}: boxes must be a list of (x0, y0, x1, y1). Got {boxes!r} instead.")
    return found  # type: ignore[return-value]


def _drawn(boxes: Iterable[Box], width: int, height: int) -> Image.Image:
    (mask,) = boxes_to_masks([tuple(boxes)], height, width)
    return _white_where(mask.numpy())


def _white_where(mask: npt.NDArray[np.bool_]) -> Image.Image:
    return Image.fromarray(np.where(mask, 255, 0).astype(np.uint8))


def _read_mask(path: Path) -> Image.Image:
    try:
        with Image.open(path) as image:
            image.load()
            return image
    except Exception as error:  # of a damaged file, Pillow's decoders raise nearly anything
        raise OSError(f"{path}: cannot be read as a mask: {error}") from error


def _black_and_white(mask: Image.Image) -> Image.Image:
    """White wherever a value, of whatever range, or the index of a colour is above zero."""
    opaque = mask.convert("RGB") if mask.mode in ("RGBA", "LA", "PA", "La", "RGBa") else mask
    values: npt.NDArray[Any] = np.asarray(opaque)
    return _white_where((values != 0).any(axis=tuple(range(2, values.ndim))))


def _check_distinct(examples: Sequence[Example], data: Path) -> None:
    seen: set[str] = set()
    for example in examples:
        if example.name in seen:
            raise ValueError(f"{data}: every image must be named once. Got {example.name!r} again.")
        seen.add(example.name)


def _shown(record: Mapping[str, Any]) -> str:
    text = repr(dict(record))
    return text if len(text) <= 80 else f"{text[:80]}…"
