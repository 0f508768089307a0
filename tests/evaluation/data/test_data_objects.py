"""Data in every form that ``evaluate`` takes from Python."""

import csv

import numpy as np
import pytest
import torch
from transformers import ViTImageProcessor

from captum_gmar import AttentionRollout, evaluate
from captum_gmar.metrics import Mean, deletion, relevance_mass_accuracy
from captum_gmar.metrics.controls import CONTROLS
from evaluation.small_data import CORNERS, FEW, IMAGES, Damaged, Pairs, mask, photo, pixels, values_in_order


def generated():
    yield from (Pairs()[number] for number in range(IMAGES))


FORMS = {
    "tuples": lambda: [Pairs()[number] for number in range(IMAGES)],
    "a generator": generated,
    "a torch data set": Pairs,
    "boxes": lambda: [(pixels(number), torch.tensor(number), [CORNERS]) for number in range(IMAGES)],
    "tensors of boxes": lambda: [(pixels(number), number, torch.tensor([CORNERS]).float()) for number in range(IMAGES)],
    "arrays of masks": lambda: [(pixels(number)[None], np.int64(number), mask().numpy()) for number in range(IMAGES)],
    "dictionaries": lambda: [
        {"pixel_values": pixels(number), "label": number, "mask": mask()} for number in range(IMAGES)
    ],
    "dictionaries of boxes": lambda: [
        {"image": pixels(number), "label": number, "boxes": [CORNERS]} for number in range(IMAGES)
    ],
}


@pytest.fixture
def expected(vit):
    """Return the values of the metrics themselves."""
    numbers = []
    for number in range(IMAGES):
        inputs, rollout = pixels(number)[None], AttentionRollout(vit)
        attributions = rollout.attribute(inputs, target=number)
        asked = (lambda images: vit(images).logits), inputs, attributions, number
        numbers.append(float(deletion(*asked, patch_size=8, steps=4, removal=Mean()).auc))
        numbers.append(float(relevance_mass_accuracy(attributions, mask()[None])))
    return numbers


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_data(vit, expected, form):
    evaluation = evaluate(vit, FORMS[form](), **FEW, target="label")
    found = [row["value"] for row in evaluation.records() if row["method"] == "rollout"]
    assert found == pytest.approx(expected, abs=1e-6)
    assert {row["method"] for row in evaluation.records()} == {"rollout", *CONTROLS}
    assert [row["target"] for row in evaluation.records()[:: 2 * 4]] == [0, 1, 2]
    assert not evaluation.skipped


def save_photos(folder):
    paths = [folder / f"{number}.png" for number in range(IMAGES)]
    for number, path in enumerate(paths):
        photo(number).save(path)
    return paths


def test_images_by_a_processor_and_from_files(vit, tmp_path):
    """All the same images: at hand, as arrays, by their paths, as a folder and as a data set of the other library."""
    datasets = pytest.importorskip("datasets", reason="the datasets library is not installed")
    paths = save_photos(tmp_path)
    forms = [
        [(photo(number), None) for number in range(IMAGES)],
        [photo(number) for number in range(IMAGES)],
        [np.asarray(photo(number)) for number in range(IMAGES)],
        paths,
        [{"path": str(path)} for path in paths],
        tmp_path,
        str(tmp_path),
        datasets.Dataset.from_dict(
            {"image": [photo(number) for number in range(IMAGES)]},
            features=datasets.Features({"image": datasets.Image()}),
        ),
    ]
    few = {**FEW, "metrics": ["deletion"], "processor": ViTImageProcessor(size={"height": 32, "width": 32})}
    first, *others = (evaluate(vit, data, **few) for data in forms)
    for other in others:
        assert values_in_order(other) == values_in_order(first)


@pytest.mark.fault
@pytest.mark.parametrize("error", [OSError("disk gone"), KeyError("image"), RuntimeError("worker died"), IndexError()])
@pytest.mark.parametrize("target", ["predicted", "label"])
def test_an_item_that_raises_is_left_out_as_a_path_is(vit, tmp_path, error, target):
    options = {**FEW, "target": target}
    with pytest.warns(UserWarning, match="left out 1 image, see `skipped`: example 1: "):
        evaluation = evaluate(vit, Damaged(error), **options, output=tmp_path / "results")
    reason = f"{type(error).__name__}: {error}".strip()
    assert [(skip.number, skip.name, skip.reason) for skip in evaluation.skipped] == [(1, "example 1", reason)]
    with (tmp_path / "results" / "skipped.csv").open(newline="", encoding="utf-8") as file:
        assert list(csv.reader(file))[1:] == [["1", "example 1", reason]]
    whole = evaluate(vit, Pairs(), **options).records()
    kept = [row["value"] for row in whole if row["example"] != 1 and row["method"] == "rollout"]
    assert kept == pytest.approx([row["value"] for row in evaluation.records() if row["method"] == "rollout"], abs=1e-6)


@pytest.mark.fault
def test_an_item_that_was_measured_and_raises_now_is_left_out(vit, tmp_path):
    evaluate(vit, Pairs(), **FEW, output=tmp_path / "results")
    with pytest.warns(UserWarning, match="example 1"):
        evaluation = evaluate(vit, Damaged(OSError("disk gone")), **FEW, output=tmp_path / "results")
    assert [result.number for result in evaluation.results] == [0, 2]
    assert [skip.reason for skip in evaluation.skipped] == ["OSError: disk gone"]


def test_where_every_item_raises_the_error_says_why(vit):
    class Gone(Pairs):
        def __getitem__(self, number):
            raise OSError("disk gone")

    few = {**FEW, "metrics": ["deletion"]}
    with pytest.raises(ValueError, match=r"measurable images, but got none: .*example 0: OSError: disk gone"):
        evaluate(vit, Gone(), **few)
