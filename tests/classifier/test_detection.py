"""The query of a class or a box: that which the detections and their overlap, worked out by hand, say."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from task_models import make

from captum_gmar import AttentionEvidence
from captum_gmar.classifier import Classifier, find_object, find_query

SIZE = (60, 120)  # height, width
# Middle, width and height as shares: the left half, the right half, the upper right quarter, all.
BOXES = torch.tensor([[[0.25, 0.5, 0.5, 1.0], [0.75, 0.5, 0.5, 1.0], [0.75, 0.25, 0.5, 0.5], [0.5, 0.5, 1.0, 1.0]]])
PROBABILITIES = torch.tensor([[[0.9, 0.2], [0.6, 0.7], [0.55, 0.3], [0.1, 0.2]]])
SIGMOID = SimpleNamespace(logits=PROBABILITIES.logit(), pred_boxes=BOXES)


@pytest.mark.parametrize(
    ("question", "target"),
    [
        ({}, (0, 0)),  # the surest
        ({"label": 0}, (0, 0)),
        ({"label": 1}, (1, 1)),
        ({"box": (60, 0, 120, 30)}, (2, 0)),  # exactly the quarter
        ({"box": (62, 0, 120, 55)}, (1, 1)),
        ({"box": (0, 0, 120, 60)}, (0, 0)),  # the query of all detects nothing; of the halves the first counts
        ({"box": (60, 0, 120, 60), "label": 0}, (1, 0)),  # 1 x 0.6 is more than 1/2 x 0.55
        ({"box": (60, 0, 120, 32), "label": 0}, (2, 0)),  # 32/60 x 0.6 is less than 30/32 x 0.55
    ],
)
def test_query_by_class_and_box(question, target):
    found = find_query(SIGMOID, 2, SIZE, **question)
    assert found.target == target
    assert found.probability == pytest.approx(float(PROBABILITIES[0, target[0], target[1]]))
    left, top, right, bottom = found.box
    middle = torch.tensor([(left + right) / 240, (top + bottom) / 120, (right - left) / 120, (bottom - top) / 60])
    torch.testing.assert_close(middle, BOXES[0, target[0]])


def test_boxes_are_shares_of_what_the_detector_is_shown():
    # The photo of 120x60 is first the upper left quarter of what is shown, then the lower right one.
    found = find_query(SIGMOID, 2, SIZE, box=(0, 0, 120, 60), shown=(0, 0, 240, 120))
    assert (found.query, found.box) == (0, (0, 0, 120, 120))
    found = find_query(SIGMOID, 2, SIZE, box=(0, 0, 120, 60), shown=(-120, -60, 120, 60))
    assert (found.query, found.box) == (1, (0, -60, 120, 60))


def test_where_a_class_means_nothing_classes_compete():
    logits = torch.tensor([[[2.0, 0.0, 5.0], [1.0, 0.0, -1.0]]])  # the first query is surer of no object
    found = find_query(SimpleNamespace(logits=logits, pred_boxes=BOXES[:, :2]), 2, SIZE, label=0)
    assert found.target == (1, 0)
    assert found.probability == pytest.approx(float(logits[0, 1].softmax(0)[0]))


def test_a_query_is_explained():
    model = make()["detector"][0].eval()
    pixels = torch.randn(1, 3, 32, 48)
    found = find_query(model(pixels), 3, (32, 48), label=2, threshold=0)
    assert found.query == int(model(pixels).logits.softmax(-1)[0, :, 2].argmax())
    assert AttentionEvidence(model).relevance(pixels, target=found.target).shape == (1, 4, 6)


@pytest.mark.parametrize(
    ("question", "message"),
    [
        ({"threshold": 0.99}, r"model must detect any class with a probability of 0\.99 or more"),
        ({"label": 2}, r"label must be from 0 to 1 for this model, but got 2\."),
        ({"box": (0, 0, 121, 60)}, r"box must be .*in the image of 120x60 pixels, but got \(0, 0, 121, 60\)"),
        ({"box": (5, 5, 5, 9)}, "box must be left, top, right and bottom, in the image"),
        ({"box": (5, 5, 9)}, r"box must be left, top, right and bottom, in pixels of the photo"),
        ({"box": "all"}, "box must be left, top, right and bottom, in pixels of the photo, but got 'all'"),
        ({"label": "dog"}, r"label must be from 0 to 1 for this model, but got 'dog'\."),
        ({"threshold": 50}, r"threshold must be a number in \[0, 1\], but got 50\."),
        ({"threshold": "half"}, r"threshold must be a number in \[0, 1\], but got 'half'\."),
        ({"label": 0, "threshold": 0.95}, "model must detect class 0 with a probability of 0.95 or more"),
        (
            {"label": 1, "box": (0, 0, 30, 60)},
            r"model must detect class 1 in the box \(0, 0, 30, 60\) with a probability of 0.5",
        ),
    ],
)
def test_what_is_not_detected_is_told(question, message):
    with pytest.raises(ValueError, match=message):
        find_query(SIGMOID, 2, SIZE, **question)


@pytest.mark.parametrize("size", [(0, 0), (60, 0), (-1, 60), (60,), 60])
def test_an_image_without_pixels_is_refused(size):
    with pytest.raises(ValueError, match=r"image_size must be .*height and width"):
        find_query(SIGMOID, 2, size)


@pytest.mark.fault
@pytest.mark.parametrize("number", [0, 3, 80, "2"])
def test_a_wrong_number_of_labels_is_refused(number):
    with pytest.raises(ValueError, match=f"num_labels must be the model's, which has 2 logits .* but got {number!r}"):
        find_query(SIGMOID, number, SIZE)


@pytest.mark.fault
def test_other_outputs_are_refused():
    with pytest.raises(TypeError, match="output must be a detector's, with logits and pred_boxes"):
        find_query(torch.zeros(1, 2, 3), 2, SIZE, label=0)
    several = SimpleNamespace(logits=PROBABILITIES.expand(2, -1, -1), pred_boxes=BOXES.expand(2, -1, -1))
    with pytest.raises(ValueError, match="output must be of one image"):
        find_query(several, 2, SIZE, label=0)


def test_an_object_in_a_photo_that_is_padded():
    model, processor = make()["padding detector"]
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8))
    inputs = processor(photo, return_tensors="pt")
    assert inputs["pixel_mask"].sum() == 60 * 40  # of 96x64
    with torch.no_grad():
        output = model.eval()(**inputs)
    (boxes,) = processor.post_process_object_detection(output, threshold=0, target_sizes=[(40, 60)])
    best = int(boxes["scores"].argmax())
    found = find_object(Classifier(model, processor), photo, threshold=0)
    label = int(boxes["labels"][best])
    assert found.detection.target == (int(output.logits.softmax(-1)[0, :, label].argmax()), label)
    assert found.detection.probability == pytest.approx(float(boxes["scores"][best]))
    assert found.detection.box == pytest.approx(boxes["boxes"][best].tolist(), abs=1e-4)
    torch.testing.assert_close(found.logits(found.pixels), output.logits)
    torch.testing.assert_close(found.logits(found.pixels.repeat(2, 1, 1, 1)), output.logits.repeat(2, 1, 1))
    assert (model(found.pixels).logits - output.logits).abs().max() > 1e-3  # without the mask of the padding
    with pytest.raises(ValueError, match="box must be in the photo, from 0,0 to 60,40 in pixels, but got 0,0,300,30"):
        find_object(Classifier(model, processor), photo, box=(0, 0, 300, 30))


@pytest.mark.fault
def test_a_box_that_no_query_overlaps_is_told_as_such():
    with pytest.raises(ValueError, match=r"in the box \(99, 0, 120, 9\) .* does not: queries that do are elsewhere"):
        find_query(SIGMOID, 2, SIZE, box=(99, 0, 120, 9), threshold=0.8)
