"""Data on disk in every form that ``evaluate`` reads."""

import json

import pytest
from PIL import Image

from captum_gmar.evaluation.data.data_files import read_examples
from evaluation.data.tables import BOX, inside, white, write_table


def test_folder(photos):
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
def test_table(photos, suffix, column):
    boxes = [BOX] if suffix == ".json" else json.dumps([BOX])
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


def test_several_boxes_are_one_object(photos):
    other = [6.0, 0.0, 8.0, 1.0]
    (example,) = read_examples(write_table(photos / "t.json", [{"path": "cat/a.jpg", "boxes": [BOX, other]}]))
    assert white(example.read_mask(8, 6)) == inside(BOX) | inside(other)


def test_saved_data_set(photos):
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


BAD_JSON = [
    ("", "cannot be read: Expecting value"),
    ("[" * 5000 + "]" * 5000, "cannot be read: maximum recursion depth exceeded"),
    ('[{"path": "\udce9"}]', "cannot be read: 'utf-8' codec can't decode"),
    ("[]", "no images"),
    ("{}", "it is no list of records"),
    ("[1]", "it is no list of records"),
    ("[{", "cannot be read"),
    ('[{"label": 1}]', r"a record must have a path, but got \{'label': 1\}"),
    ('[{"path": 3}]', "a record must have a path"),
    ('[{"path": "a", "boxes": [[1, 2, 3]]}]', r"boxes must be a list of \(x0, y0, x1, y1\)"),
    ('[{"path": "a", "boxes": "one"}]', "boxes must be a list of"),
    ('[{"path": "a", "boxes": [0, 0, 4, 4]}]', "boxes must be a list of"),
    ('[{"path": "a", "boxes": [[0, 0, null, 4]]}]', "boxes must be a list of"),
    ('[{"path": "a", "boxes": [[0, 0, 1, NaN]]}]', "boxes must be a list of"),
    ('[{"path": "a"}, {"path": "a"}]', "every image must be named once, but got 'a' again"),
]
BAD_CSV = [
    ("", "no images"),
    ("path,label\n", "no images"),
    ("picture,label\na.png,0\n", "a record must have a path"),
    ("path,label\n\udce9.png,0\n", "cannot be read: 'utf-8' codec can't decode"),
    ("path,label\n" + "x" * 200_000 + ",0\n", "cannot be read: field larger than field limit"),
    ("path\na.png\na.png\n", "every image must be named once, but got 'a.png' again"),
    ('path,boxes\na.png,"[[0, 0, 4]]"\n', "boxes must be a list of"),
    ("path,boxes\na.png,somewhere\n", "boxes must be a list of"),
]


@pytest.mark.parametrize(
    ("name", "content", "says"), [*(("t.json", *row) for row in BAD_JSON), *(("t.csv", *row) for row in BAD_CSV)]
)
def test_bad_tables(tmp_path, name, content, says):
    (tmp_path / name).write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(ValueError, match=says):
        read_examples(tmp_path / name)


def test_no_such_data(tmp_path):
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


def test_a_flat_folder(photos):
    """Without classes; what is in hidden folders does not count."""
    examples = read_examples(photos / "cat")
    assert [(example.name, example.label) for example in examples] == [("a.jpg", None), ("b.png", None)]
    assert examples[1].read().getpixel((0, 0)) == (0, 0, 0)


def test_saved_data_set_with_gaps(photos):
    datasets = pytest.importorskip("datasets", reason="the datasets library is not installed")
    columns = {"image": [Image.new("RGB", (8, 6)), None], "mask": [None, None]}
    features = datasets.Features({"image": datasets.Image(), "mask": datasets.Image()})
    datasets.Dataset.from_dict(columns, features=features).save_to_disk(photos / "saved")
    first, second = read_examples(photos / "saved")
    assert first.read_mask(8, 6) is None
    with pytest.raises(ValueError, match="it has no image"):
        second.read()
