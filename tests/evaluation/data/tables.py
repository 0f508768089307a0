"""Tables of photos."""

import csv
import json

import numpy as np
from PIL import Image

from captum_gmar.evaluation.data.data_files import read_examples

BOX = [1.0, 2.0, 5.0, 4.0]


def write_table(path, records):
    if path.suffix == ".json":
        path.write_text(json.dumps(records))
        return path
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(records[0]))
        writer.writeheader()
        writer.writerows(records)
    return path


def white(mask):
    """Row and column of the pixels that are white, all others being black."""
    assert mask is not None
    values = np.asarray(mask)
    assert set(np.unique(values)) <= {0, 255}
    return {(int(row), int(column)) for row, column in np.argwhere(values)}


def inside(box):
    x0, y0, x1, y1 = map(int, box)
    return {(row, column) for row in range(y0, y1) for column in range(x0, x1)}


def masked(photos, **changes):
    record = {"path": "cat/a.jpg", "label": 1, "boxes": [BOX], "mask": "mask.png", **changes}
    (example,) = read_examples(write_table(photos / "t.json", [record]))
    return example


def save_mask(path, column=0):
    mask = np.zeros((6, 8), bool)
    mask[0, column] = True
    Image.fromarray(mask).save(path)
