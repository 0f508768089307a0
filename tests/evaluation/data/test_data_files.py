"""Data in every form that ``evaluate`` reads."""

import csv
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from captum_gmar.evaluation.data.data_files import read_examples
from captum_gmar.evaluation.data.example import Example

BOX = [1.0, 2.0, 5.0, 4.0]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder with two classes of images of 8x6 pixels, and what is no image or hidden."""
    for number, name in enumerate(["cat/b.png", "cat/a.jpg", "dog/c.png", ".hidden/d.png"]):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (8, 6), (50 * number, 0, 0)).save(path)
    (tmp_path / "cat" / "notes.txt").write_text("no image")
    return tmp_path


def write_table(path: Path, records: list[dict[str, Any]]) -> Path:
    if path.suffix == ".json":
        path.write_text(json.dumps(records))
        return path
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(records[0]))
        writer.writeheader()
        writer.writerows(records)
    return path


def white(mask: Image.Image | None) -> set[tuple[int, int]]:
    """Row and column of the pixels that are white, all others being black."""
    assert mask is not None
    values = np.asarray(mask)
    assert set(np.unique(values)) <= {0, 255}
    return {(int(row), int(column)) for row, column in np.argwhere(values)}


def inside(box: list[float]) -> set[tuple[int, int]]:
    x0, y0, x1, y1 = map(int, box)
    return {(row, column) for row in range(y0, y1) for column in range(x0, x1)}


def test_folder(photos: Path) -> None:
    examples = read_examples(photos)
    assert [(own.name, own.label) for own in examples] == [
        ("cat/a.jpg", "cat"),
        ("cat/b.png", "cat"),
        ("dog/c.png", "dog"),
    ]
    assert not any(own.has_object for own in examples)
    assert examples[2].read().getpixel((0, 0)) == (100, 0, 0)


@pytest.mark.parametrize("suffix", [".csv", ".json"])
@pytest.mark.parametrize("column", ["path", "file", "file_name"])
def test_table(photos: Path, suffix: str, column: str) -> None:
    boxes: Any = [BOX] if suffix == ".json" else json.dumps([BOX])
    records = [
        {column: "cat/a.jpg", "label": 3, "boxes": boxes},
        {column: str(photos / "dog" / "c.png"), "label": "dog", "boxes": None if suffix == ".json" else ""},
    ]
    first, second = read_examples(write_table(photos / f"table{suffix}", records))
    assert (first.label, second.label) == (3 if suffix == ".json" else "3", "dog")
    assert second.read().getpixel((0, 0)) == (100, 0, 0)  # by its absolute path
    assert white(first.read_mask(8, 6)) == inside(BOX)
    assert not second.has_object
    assert second.read_mask(8, 6) is None


def test_several_boxes_are_one_object(photos: Path) -> None:
    other = [6.0, 0.0, 8.0, 1.0]
    (example,) = read_examples(write_table(photos / "t.json", [{"path": "cat/a.jpg", "boxes": [BOX, other]}]))
    assert white(example.read_mask(8, 6)) == inside(BOX) | inside(other)


def saved_masks() -> dict[str, Callable[[np.ndarray], Image.Image]]:
    def palette(mask: np.ndarray) -> Image.Image:
        image = Image.fromarray(mask.astype(np.uint8))
        image.putpalette([0, 0, 0, 0, 0, 0])
        return image

    def transparent(mask: np.ndarray) -> Image.Image:
        return Image.fromarray((255 * mask).astype(np.uint8)).convert("RGBA")

    return {
        "black and white": lambda mask: Image.fromarray(mask),
        "class indices": lambda mask: Image.fromarray((7 * mask).astype(np.uint8)),
        "16 bit": lambda mask: Image.fromarray(mask.astype(np.uint16)),
        "palette": palette,
        "opaque": transparent,
    }


@pytest.mark.parametrize("kind", saved_masks())
def test_masks(photos: Path, kind: str) -> None:
    mask = np.zeros((6, 8), bool)
    mask[2:4, 1:5] = True
    saved_masks()[kind](mask).save(photos / "mask.png")
    (example,) = read_examples(write_table(photos / "t.json", [{"path": "cat/a.jpg", "mask": "mask.png"}]))
    assert example.has_object
    assert white(example.read_mask(8, 6)) == inside(BOX)


def test_saved_data_set(photos: Path) -> None:
    datasets = pytest.importorskip("datasets", reason="the datasets library is not installed")
    columns = {
        "image": [Image.new("RGB", (8, 6), (9, 0, 0)), Image.new("L", (4, 4))],
        "label": [1, 0],
        "boxes": [[BOX], []],
    }
    features = datasets.Features(
        {
            "image": datasets.Image(),
            "label": datasets.ClassLabel(names=["cat", "dog"]),
            "boxes": datasets.Sequence(datasets.Sequence(datasets.Value("float32"))),
        }
    )
    datasets.Dataset.from_dict(columns, features=features).save_to_disk(photos / "saved")
    first, second = read_examples(photos / "saved")
    assert [(own.name, own.label) for own in (first, second)] == [("row 0", "dog"), ("row 1", "cat")]
    assert first.read().getpixel((0, 0)) == (9, 0, 0)
    assert second.read().mode == "RGB"
    assert white(first.read_mask(8, 6)) == inside(BOX)
    assert not second.has_object


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("", "cannot be read: Expecting value"),
        ("[" * 5000 + "]" * 5000, "cannot be read: maximum recursion depth exceeded"),
        ('[{"path": "\udce9"}]', "cannot be read: 'utf-8' codec can't decode"),
        ("[]", "no images"),
        ("{}", "it is no list of records"),
        ("[1]", "it is no list of records"),
        ("[{", "cannot be read"),
        ('[{"label": 1}]', r"a record must have a path. Got \{'label': 1\} instead"),
        ('[{"path": 3}]', "a record must have a path"),
        ('[{"path": "a", "boxes": [[1, 2, 3]]}]', r"boxes must be a list of \(x0, y0, x1, y1\)"),
        ('[{"path": "a", "boxes": "one"}]', "boxes must be a list of"),
        ('[{"path": "a", "boxes": [0, 0, 4, 4]}]', "boxes must be a list of"),
        ('[{"path": "a", "boxes": [[0, 0, null, 4]]}]', "boxes must be a list of"),
        ('[{"path": "a", "boxes": [[0, 0, 1, NaN]]}]', "boxes must be a list of"),
        ('[{"path": "a"}, {"path": "a"}]', "every image must be named once. Got 'a' again"),
    ],
)
def test_bad_tables(tmp_path: Path, content: str, expected: str) -> None:
    (tmp_path / "t.json").write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(ValueError, match=expected):
        read_examples(tmp_path / "t.json")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("", "no images"),
        ("path,label\n", "no images"),
        ("picture,label\na.png,0\n", "a record must have a path"),
        ("path,label\n\udce9.png,0\n", "cannot be read: 'utf-8' codec can't decode"),
        ("path,label\n" + "x" * 200_000 + ",0\n", "cannot be read: field larger than field limit"),
        ("path\na.png\na.png\n", "every image must be named once. Got 'a.png' again"),
        ('path,boxes\na.png,"[[0, 0, 4]]"\n', "boxes must be a list of"),
        ("path,boxes\na.png,somewhere\n", "boxes must be a list of"),
    ],
)
def test_bad_csv(tmp_path: Path, content: str, expected: str) -> None:
    (tmp_path / "t.csv").write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(ValueError, match=expected):
        read_examples(tmp_path / "t.csv")


def test_no_such_data(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="no such file or folder"):
        read_examples(tmp_path / "none.csv")
    (tmp_path / "t.txt").write_text("path\na.png\n")
    with pytest.raises(ValueError, match=r"ends in neither .csv nor .json"):
        read_examples(tmp_path / "t.txt")
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00path")
    with pytest.raises(ValueError, match="cannot be read"):
        read_examples(tmp_path / "binary.csv")
    for name in ("empty", "folder.csv"):
        (tmp_path / name).mkdir()
        with pytest.raises(ValueError, match="no images"):
            read_examples(tmp_path / name)


def test_bad_masks(photos: Path) -> None:
    Image.new("L", (3, 3)).save(photos / "small.png")
    (photos / "broken.png").write_bytes(b"no png")

    with pytest.raises(ValueError, match="its mask is of 3x3 pixels and the image of 8x6"):
        masked(photos, mask="small.png").read_mask(8, 6)
    for name in ("broken.png", "absent.png", 5):
        with pytest.raises(OSError, match=f"{name}: cannot be read as a mask"):
            masked(photos, mask=name).read_mask(8, 6)


@pytest.mark.parametrize("box", [[0, 0, 9, 2], [4, 4, 2, 2]])
def test_box_outside_of_its_image(photos: Path, box: list[int]) -> None:
    (example,) = read_examples(write_table(photos / "t.json", [{"path": "cat/a.jpg", "boxes": [box]}]))
    with pytest.raises(ValueError, match="inside the image of 8x6 pixels, width by height"):
        example.read_mask(8, 6)


def test_a_flat_folder(photos: Path) -> None:
    """Without classes; what is in hidden folders does not count."""
    examples = read_examples(photos / "cat")
    assert [(example.name, example.label) for example in examples] == [("a.jpg", None), ("b.png", None)]
    assert examples[1].read().getpixel((0, 0)) == (0, 0, 0)


def masked(photos: Path, **changes: object) -> Example:
    record = {"path": "cat/a.jpg", "label": 1, "boxes": [BOX], "mask": "mask.png", **changes}
    (example,) = read_examples(write_table(photos / "t.json", [record]))
    return example


def save_mask(path: Path, column: int = 0) -> None:
    mask = np.zeros((6, 8), bool)
    mask[0, column] = True
    Image.fromarray(mask).save(path)


@pytest.mark.parametrize("change", [{"label": 2}, {"boxes": [[0, 0, 1, 1]]}, {"mask": None}])
def test_what_is_known_is_part_of_an_example(photos: Path, change: dict[str, object]) -> None:
    save_mask(photos / "mask.png")
    measured = masked(photos).identity()
    assert masked(photos).is_same(measured)
    assert not masked(photos, **change).is_same(measured)


@pytest.mark.parametrize("name", ["cat/a.jpg", "mask.png"])
def test_another_image_under_the_same_name_is_another_example(photos: Path, name: str) -> None:
    """Also one of the same size."""
    save_mask(photos / "mask.png")
    measured = masked(photos).identity()
    content = bytearray((photos / name).read_bytes())
    content[-1] ^= 1
    (photos / name).write_bytes(content)
    assert not masked(photos).is_same(measured)
    (photos / name).unlink()
    assert not masked(photos).is_same(measured)


def test_a_copy_of_the_files_is_the_same(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whose times are others: the content decides. Where size and time are the same, it is not read."""
    save_mask(photos / "mask.png")
    measured = masked(photos).identity()
    os.utime(photos / "cat" / "a.jpg", (1, 1))
    assert masked(photos).is_same(measured)
    touched = masked(photos).identity()
    monkeypatch.setattr(Path, "read_bytes", None)
    assert masked(photos).is_same(touched)


def test_saved_data_set_with_gaps(photos: Path) -> None:
    datasets = pytest.importorskip("datasets", reason="the datasets library is not installed")
    columns = {"image": [Image.new("RGB", (8, 6)), None], "mask": [None, None]}
    features = datasets.Features({"image": datasets.Image(), "mask": datasets.Image()})
    datasets.Dataset.from_dict(columns, features=features).save_to_disk(photos / "saved")
    first, second = read_examples(photos / "saved")
    assert first.read_mask(8, 6) is None
    with pytest.raises(ValueError, match="it has no image"):
        second.read()
