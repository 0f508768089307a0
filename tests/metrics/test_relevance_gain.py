"""Symmetric relevance gain, prediction changes and AOPC against loops over patches."""

import itertools

import pytest
import torch
from torch import nn, tensor
from torch.testing import assert_close

from captum_gmar.metrics import Mean, Zero, area_over_curve, deletion, prediction_changes, symmetric_relevance_gain
from metrics.by_definition import counting


@pytest.fixture
def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 16), nn.Tanh(), nn.Linear(16, 5)).double().eval()


@pytest.fixture
def images():
    return torch.randn(3, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def relevance():
    return torch.randn(3, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(2))


def removed_one_by_one(net, image, order):
    """Compute logits (17, classes) while 4×4 patches of 2×2 pixels are filled with the mean colour."""
    image, mean, logits = image.clone(), image.mean((1, 2), keepdim=True), [net(image[None])[0]]
    for patch in order:
        row, column = divmod(int(patch), 4)
        image[:, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2] = mean
        logits.append(net(image[None])[0])
    return torch.stack(logits).detach()


def area(curve):
    return sum((a + b) / 2 for a, b in itertools.pairwise(curve)) / (len(curve) - 1)


def test_step_by_step(net, images, relevance):
    targets = [3, 0, 4]
    found = symmetric_relevance_gain(net, images, relevance, targets, steps=16)
    changes = prediction_changes(net, images, relevance, steps=16)
    for example, target in enumerate(targets):
        order = relevance[example].flatten().argsort(descending=True)
        most = removed_one_by_one(net, images[example], order)
        least = removed_one_by_one(net, images[example], order.flip(0))[:, target]
        assert_close(found.most_relevant_first.curve[example], most[:, target])
        assert_close(found.least_relevant_first.curve[example], least)
        assert_close(found.gain[example], area(least) - area(most[:, target]))
        changed = (most.argmax(1) != most[0].argmax()).double()
        assert_close(changes.curve[example], changed)
        assert_close(changes.auc[example], area(changed))
    assert changes.curve.any()
    assert not changes.curve.all()


def test_probabilities_and_other_removals(net, images, relevance):
    options = {"steps": 8, "removal": Zero(), "softmax": True}
    found = symmetric_relevance_gain(net, images, relevance, 2, **options)
    most = deletion(net, images, relevance, 2, **options)
    least = deletion(net, images, -relevance, 2, **options)
    assert_close(found.gain, least.auc - most.auc)
    assert found.most_relevant_first.removal == "zero"
    assert symmetric_relevance_gain(net, images, relevance, 2, steps=4).least_relevant_first.removal == Mean().name


def test_a_map_that_says_nothing_gains_nothing(net, images):
    gain = symmetric_relevance_gain(net, images, torch.zeros(3, 4, 4, dtype=torch.float64), 2, steps=16).gain
    assert_close(gain, torch.zeros_like(gain))


def test_both_curves_share_their_ends(net, images, relevance):
    counted = counting(net)
    symmetric_relevance_gain(counted, images, relevance, 2, steps=16)
    assert sum(counted.sizes) == 3 * (17 + 15)


def test_area_over_curve(net, images, relevance):
    curves = deletion(net, images, relevance, 2, steps=4, softmax=False)
    fallen = [[float(curve[0] - value) for value in curve[1:]] for curve in curves.curve]
    assert_close(area_over_curve(curves), tensor([sum(row) / 4 for row in fallen], dtype=torch.float64))


@pytest.mark.parametrize("shape", [(3,), (3, 1)])
def test_predictions_of_one_class(shape, images, relevance):
    with pytest.raises(ValueError, match=r"of two classes at least, but got \(\d+,( 1)?\)"):
        prediction_changes(lambda inputs: torch.zeros(len(inputs), *shape[1:]), images, relevance, steps=4)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"inputs": "cat"}, TypeError, "inputs must be a tensor"),
        ({"batch_size": 0}, ValueError, "batch_size must be"),
        ({"steps": 17}, ValueError, "steps must be at most the number of patches, 16, but got 17"),
        ({"attributions": torch.ones(2, 4, 4)}, ValueError, "relevance must be of shape .* for 3 examples"),
    ],
)
@pytest.mark.parametrize("metric", [symmetric_relevance_gain, prediction_changes])
def test_wrong_arguments(metric, change, error, message, net, images, relevance):
    target = {"target": 2} if metric is symmetric_relevance_gain else {}
    with pytest.raises(error, match=message):
        metric(**{"forward_func": net, "inputs": images, "attributions": relevance, "steps": 4, **target, **change})
