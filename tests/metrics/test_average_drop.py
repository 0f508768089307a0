"""Average drop, increase and gain against their formulas, example by example."""

import math

import pytest
import torch
from torch import tensor
from torch.testing import assert_close

from captum_gmar.metrics import masked_probability, uniform_map
from metrics.by_definition import counting


def slow_scores(model, image, attribution, target):
    """Compute the three scores of one example by the papers' formulas."""
    relevance = [[sum(attribution[:, y, x].tolist()) for x in range(12)] for y in range(8)]
    low, high = min(map(min, relevance)), max(map(max, relevance))
    masked = image.clone()
    for y in range(8):
        for x in range(12):
            masked[:, y, x] *= (relevance[y][x] - low) / (high - low)

    def probability(inputs):
        logits = model(inputs[None])[0].tolist()
        return math.exp(logits[target]) / sum(map(math.exp, logits))

    y, o = probability(image), probability(masked)
    return {"drop": max(0, y - o) / y, "increase": float(o > y), "gain": max(0, o - y) / (1 - y)}


def test_against_the_formulas(classifier, photos, attributions):
    targets = [3, 0, 4]
    expected = [slow_scores(classifier, *example) for example in zip(photos, attributions, targets, strict=True)]
    found = masked_probability(classifier, photos, attributions, targets)
    for name in ("drop", "increase", "gain"):
        values = tensor([row[name] for row in expected])
        assert 0 < (values > 0).sum() < 3  # both cases of each formula occur
        assert_close(getattr(found, name), values, rtol=1e-4, atol=1e-6)


def test_by_hand():
    # The masks leave a half and a quarter of the images' mean.
    inputs = torch.ones(2, 1, 1, 4)
    attributions = tensor([[[[7.0, 7.0, 3.0, 3.0]]], [[[-1.0, -1.0, 3.0, -1.0]]]])

    def rise(images):
        return images.mean((1, 2, 3)) * 0.8

    found = masked_probability(rise, inputs, attributions, softmax=False)
    assert_close(tuple(found), (tensor([0.8, 0.8]), tensor([0.4, 0.2])))
    fallen = masked_probability(lambda images: 1 - rise(images), inputs, attributions, softmax=False)
    for name, rising, falling in (
        ("drop", [0.5, 0.75], [0.0, 0.0]),
        ("gain", [0.0, 0.0], [0.5, 0.75]),
        ("increase", [0.0, 0.0], [1.0, 1.0]),
    ):
        assert_close(getattr(found, name), tensor(rising))
        assert_close(getattr(fallen, name), tensor(falling))


def test_a_uniform_map_leaves_the_image(classifier, photos):
    found = masked_probability(classifier, photos, uniform_map(photos), 2)
    assert_close(found.masked, found.image, rtol=0, atol=0)
    assert not torch.stack([found.drop, found.increase, found.gain]).any()


def test_certain_probabilities_give_no_nan():
    inputs = torch.ones(1, 1, 1, 2)
    attributions = tensor([[[[0.0, 1.0]]]])
    certain = masked_probability(lambda x: 2 * (1 - x.mean((1, 2, 3))), inputs, attributions, softmax=False)
    assert [float(v) for v in (certain.image, certain.drop, certain.gain)] == [0, 0, 1]
    certain = masked_probability(lambda x: x[:, 0, 0, 1], inputs, attributions, softmax=False)
    assert [float(v) for v in (certain.image, certain.drop, certain.gain)] == [1, 0, 0]


@pytest.mark.parametrize("batch_size", [1, 2, 3, 9])
def test_a_batch_equals_its_singles(classifier, photos, attributions, batch_size):
    counted = counting(classifier)
    given = photos, attributions, tensor([3, 0, 4])
    found = masked_probability(counted, *given, batch_size=batch_size)
    assert_close(tuple(found), tuple(masked_probability(classifier, *given)))
    assert max(counted.sizes) == min(batch_size, 3)


def test_wrong_arguments(classifier, photos, attributions):
    for changes, error, message in (
        ({"softmax": False}, ValueError, "probabilities from 0 to 1, but got values from .* Pass softmax=True"),
        ({"batch_size": 0}, ValueError, r"batch_size must be an integer, one or more, but got 0"),
        ({"target": 5}, ValueError, "target must be from 0 to 4, as there are 5 classes"),
        ({"target": [0]}, ValueError, "one for all examples, or"),
        ({"attributions": attributions[:, :1]}, ValueError, "the shape of the inputs"),
        ({"attributions": attributions / 0}, ValueError, "attributions must be finite"),
        ({"inputs": photos[:0], "attributions": attributions[:0]}, ValueError, "at least one example"),
        ({"forward_func": lambda inputs: None}, TypeError, r"must return a tensor .* but got NoneType"),
    ):
        given = {"forward_func": classifier, "inputs": photos, "attributions": attributions, "target": 1}
        with pytest.raises(error, match=message):
            masked_probability(**{**given, **changes})
