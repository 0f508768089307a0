"""The mean logit of a class over a region: against the model's own logits, where a mask or a point of the photo is."""

import copy

import numpy as np
import pytest
import torch
from PIL import Image
from task_models import make
from torch.testing import assert_close

from captum_gmar import AttentionEvidence
from captum_gmar.classifier import Classifier, find_region

MODELS = {name: (model.eval(), processor) for name, (model, processor) in make().items()}
PHOTO = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8))


def segmenter(name="segmenter"):
    return Classifier(*MODELS[name])


def white(rows, columns, height=40, width=60):
    """Return a mask of the photo."""
    mask = np.zeros((height, width), np.uint8)
    mask[rows, columns] = 255
    return Image.fromarray(mask)


def predicted_places(label=None):
    """Return a class, the most frequent unless it is given, and where the model predicts it, (16, 16)."""
    model, processor = MODELS["segmenter"]
    predicted = model(**processor(PHOTO, return_tensors="pt")).logits[0].argmax(0)
    label = int(predicted.flatten().mode().values) if label is None else label
    return label, predicted == label


def test_a_class_over_a_mask_at_a_point_and_where_it_is_predicted():
    upper, one = torch.arange(16)[:, None].expand(16, 16) < 8, torch.zeros(16, 16, dtype=torch.bool)
    one[15, 2] = True  # 10,39 of 60x40 pixels
    likeliest, places = predicted_places()
    at_one = next(label for label in range(3) if predicted_places(label)[1][15, 2])
    questions = [
        ({"label": "dog", "mask": white(slice(20), slice(60))}, 1, upper),
        ({"label": 2, "point": (10, 39)}, 2, one),
        ({"point": (10, 39)}, at_one, one),
        ({}, likeliest, places),
        ({"label": likeliest}, likeliest, places),
    ]
    explained = segmenter()
    pixels = torch.randn(2, 3, 64, 64)
    for question, label, region in questions:
        found = find_region(explained, PHOTO, **question)
        assert found.label == label
        assert_close(found.region, region)
        logits = explained.model(pixels).logits
        assert_close(found.mean_logit(pixels), (logits[:, label] * region).sum((1, 2)) / region.sum())
    assert_close(found.pixels, MODELS["segmenter"][1](PHOTO, return_tensors="pt")["pixel_values"])
    evidence = AttentionEvidence(explained.model, forward_func=found.mean_logit)
    assert evidence.relevance(found.pixels).shape == (1, 2, 2)


@pytest.mark.parametrize("left", [52, 70, 92])
def test_a_point_and_a_mask_where_the_photo_is_cropped(left):
    # A bar on black: the model's input differs from that of the black photo where the bar is, and nowhere else.
    cropping, photo = segmenter("cropping segmenter"), np.zeros((50, 150, 3), np.uint8)
    empty = cropping.pixel_values(Image.fromarray(photo))
    photo[:, left : left + 8] = 255
    bar = Image.fromarray(photo)
    change = (cropping.pixel_values(bar) - empty)[0].sum(0).max(0).values
    columns = cropping.model(empty).logits.shape[-1]
    within = (change > change.max() / 2).view(columns, -1).float().mean(1)  # share of each column of logits
    at_point = find_region(cropping, bar, point=(left + 4, 25)).region.any(0)
    assert within[at_point].min() >= 0.5
    over_mask = find_region(cropping, bar, mask=bar.convert("L")).region.any(0)
    assert_close(over_mask, within >= 0.5)


@pytest.mark.parametrize(
    ("question", "error", "message"),
    [
        ({"mask": white(slice(9), slice(9)), "point": (1, 1)}, ValueError, "mask cannot be combined with point"),
        ({"mask": np.ones((40, 60))}, TypeError, "mask must be a PIL image as large as the photo, but got ndarray"),
        ({"mask": white(slice(9), slice(9), 41)}, ValueError, "mask must be of the photo's 60x40 pixels"),
        ({"mask": white(slice(1), slice(1))}, ValueError, "mask must be white somewhere"),
        ({"point": (60, 3)}, ValueError, "point must be in the photo, from 0,0 to 60,40 in pixels, but got 60,3"),
        ({"point": (3,)}, ValueError, "point must be x and y, in pixels of the photo, but got (3,)."),
        ({"label": 3}, ValueError, "label must be from 0 to 2 for this model, but got 3."),
        ({"label": None, "point": 3}, ValueError, "point must be x and y, in pixels of the photo, but got 3."),
        ({"label": "cow"}, ValueError, "label must be an index or a label, but got 'cow'."),
    ],
)
def test_what_names_no_region_is_refused(question, error, message):
    with pytest.raises(error) as raised:
        find_region(segmenter(), PHOTO, **question)
    assert str(raised.value).startswith(message)


def test_a_class_that_is_predicted_nowhere_is_refused():
    model, processor = copy.deepcopy(MODELS["segmenter"])
    with torch.no_grad():
        model.decode_head.classifier.bias[1] = -1e3
    with pytest.raises(ValueError, match=r"model must predict dog \(class 1\) somewhere"):
        find_region(Classifier(model, processor), PHOTO, label="dog")


def test_a_model_that_segments_nothing_is_refused(classifier):
    with pytest.raises(ValueError, match=r"segmenter must give logits .*, but got shape \(1, 4\)\. Pass a model"):
        find_region(classifier, PHOTO)


def test_what_is_cropped_away_is_refused():
    wide = Image.new("RGB", (150, 50))  # resized to 216x72, of which the middle 64x64 is seen
    with pytest.raises(ValueError, match=r"point must be in the part of the photo that the model sees, from 52.7778,2"):
        find_region(segmenter("cropping segmenter"), wide, point=(20, 25))
    with pytest.raises(ValueError, match="a mask that covers no place of the model's output"):
        find_region(segmenter("cropping segmenter"), wide, mask=white(slice(50), slice(40), 50, 150))


@pytest.mark.fault
@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "CMYK", "1", "I;16"])
def test_a_photo_of_any_mode(mode):
    levels = np.asarray(PHOTO.convert("L"))
    photo = Image.fromarray(np.uint16(257) * levels) if mode == "I;16" else PHOTO.convert("L").convert(mode)
    seen = photo.convert("L").convert("RGB") if mode != "I;16" else PHOTO.convert("L").convert("RGB")
    assert_close(find_region(segmenter(), photo).pixels, segmenter().pixel_values(seen))


@pytest.mark.fault
def test_a_mask_of_sixteen_bits():
    mask = white(slice(20), slice(None))
    deep, grey = (Image.fromarray(np.uint16(257) * np.asarray(each.convert("L"))) for each in (mask, PHOTO))
    assert_close(find_region(segmenter(), PHOTO, mask=deep).region, find_region(segmenter(), PHOTO, mask=mask).region)
    with pytest.raises(ValueError, match="mask must be black and white"):
        find_region(segmenter(), PHOTO, mask=grey)


@pytest.mark.fault
def test_true_is_no_class():
    with pytest.raises(TypeError, match=r"label must be an index or a label, but got True"):
        find_region(segmenter(), PHOTO, label=True)
