"""Examples of a folder, a table or a data set on disk."""

import csv
import json
import reprlib
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from captum_gmar.evaluation.data.example import Example, boxes_from, label_from
from captum_gmar.files.images import image_suffixes, list_images, read_image, to_rgb

PATH_NAMES = ("path", "file", "file_name")  # of the column that holds it
DATA_FORMS = (
    "an image, a folder of images, or with a subfolder of images per class, a .csv file or a .json list of records "
    "with path and label, or a folder that the `datasets` library has saved"
)


def read_examples(data: Path) -> list[Example]:
    """Read examples of an image, a folder of images or class subfolders, a CSV or JSON file, or a saved data set."""
    if data.is_dir():
        is_saved = any((data / name).is_file() for name in ("state.json", "dataset_info.json", "dataset_dict.json"))
        examples = _saved_examples(data) if is_saved else _folder_examples(data)
    elif data.suffix.lower() in image_suffixes():
        read_image(data)  # at once, as without it there is nothing to measure
        examples = [Example(str(data), None, partial(read_image, data), files=(data,))]
    else:
        examples = [_table_example(record, data) for record in read_records(data)]
    if not examples:
        raise ValueError(f"{data} must be {DATA_FORMS}, but holds no images.")
    _check_distinct(examples, data)
    return examples


def read_records(table: Path) -> list[dict[str, Any]]:
    """Read the records of a CSV or JSON file."""
    if not table.is_file():
        raise OSError(f"{table} cannot be read: no such file or folder. Check the path.")
    try:
        text = table.read_text(encoding="utf-8").removeprefix("\ufeff")
        if table.suffix.lower() == ".csv":
            records: Any = list(csv.DictReader(text.splitlines()))
        elif table.suffix.lower() == ".json":
            records = json.loads(text)
        else:
            raise ValueError("its name ends in neither .csv nor .json")
        if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
            raise ValueError("it is no list of records")
    except (ValueError, csv.Error, RecursionError) as error:  # of the text's encoding and of JSON as well
        raise ValueError(f"{table} cannot be read: {error}. Pass {DATA_FORMS}.") from error
    return records


def _folder_examples(folder: Path) -> list[Example]:
    """Return the images in class subfolders; where there are none, those in the folder itself."""
    folders = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    labelled = [(place.name, image) for place in folders for image in list_images(place)]
    if not labelled:
        return [Example(path.name, None, partial(read_image, path), files=(path,)) for path in list_images(folder)]
    return [
        Example(f"{label}/{image.name}", label, partial(read_image, image), files=(image,)) for label, image in labelled
    ]


def _table_example(record: Mapping[str, Any], table: Path) -> Example:
    """Return the example of a row; its paths are absolute or relative to the table."""
    path = next((record[name] for name in PATH_NAMES if record.get(name)), None)
    if not isinstance(path, str):
        raise ValueError(f"{table}: a record must have a path, but got {reprlib.repr(dict(record))}.")
    mask = record.get("mask") or None
    image_file, mask_files = table.parent / path, [] if mask is None else [table.parent / str(mask)]
    return Example(
        path,
        label_from(record.get("label")),
        partial(read_image, image_file),
        boxes_from(record.get("boxes"), f"{table}: {path}"),
        partial(_read_mask, mask_files[0]) if mask_files else None,
        files=(image_file, *mask_files),
    )


def _saved_examples(folder: Path) -> list[Example]:
    try:
        from datasets import Dataset, load_from_disk
    except ImportError as error:
        raise ValueError(
            f"{folder} needs the `datasets` library, but it is not installed. "
            'Run pip install -e ".[datasets]" in a clone.'
        ) from error
    rows = load_from_disk(str(folder))
    if not isinstance(rows, Dataset):
        raise ValueError(f"{folder} must be one split, but holds several. Pass one of {', '.join(map(str, rows))}.")
    return row_examples(rows, str(folder))


def row_examples(rows: Any, place: str) -> list[Example]:
    """Return examples of a ``datasets.Dataset`` with a column image, and perhaps label, boxes and mask."""
    if "image" not in rows.column_names:
        raise ValueError(f"{place}: must have a column image, but got {', '.join(rows.column_names)}.")
    names = getattr(rows.features.get("label"), "names", None)
    others = rows.select_columns([name for name in ("label", "boxes") if name in rows.column_names])
    has_mask = "mask" in rows.column_names

    def example(number: int) -> Example:
        record = others[number] if others.column_names else {}
        label = record.get("label")
        return Example(
            f"row {number}",
            label_from(names[label] if names and label is not None else label),
            partial(_row_image, rows, number),
            boxes_from(record.get("boxes"), f"{place}: row {number}"),
            (lambda: rows[number]["mask"]) if has_mask else None,
        )

    return [example(number) for number in range(len(rows))]


def _row_image(rows: Any, number: int) -> Image.Image:
    image = rows[number]["image"]
    if image is None:
        raise ValueError("it has no image")
    return to_rgb(image)


def _read_mask(path: Path) -> Image.Image:
    try:
        with Image.open(path) as image:
            image.load()
            return image
    except Exception as error:  # of a damaged file, Pillow's decoders raise nearly anything
        raise OSError(f"{path} cannot be read as a mask: {error}. Save it as an image of the photo's size.") from error


def _check_distinct(examples: Sequence[Example], data: Path) -> None:
    seen: set[str] = set()
    for example in examples:
        if example.name in seen:
            raise ValueError(f"{data}: every image must be named once, but got {example.name!r} again.")
        seen.add(example.name)
