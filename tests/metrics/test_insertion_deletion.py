"""Deletion and insertion against curves worked by hand and drawn slowly, patch by patch."""

import itertools
import math

import pytest
import torch
from torch import tensor
from torch.testing import assert_close

from captum_gmar.metrics import Blur, Mean, deletion, insertion
from metrics.by_definition import ONES, WEIGHTS, linear


def slow_curve(model, image, attribution, target, patch, steps, inserts, replacement):
    """Compute one example's curve with loops over patches and pixels, in double precision."""
    _, height, width = image.shape
    corners = [(y, x) for y in range(0, height, patch[0]) for x in range(0, width, patch[1])]

    def pixels(corner):
        return [(corner[0] + dy, corner[1] + dx) for dy in range(patch[0]) for dx in range(patch[1])]

    scores = {corner: sum(float(attribution[:, y, x].double().sum()) for y, x in pixels(corner)) for corner in corners}
    order = sorted(corners, key=scores.__getitem__, reverse=True)
    curve, shares = [], []
    for step in range(steps + 1):
        taken = order[: math.floor(step * len(order) / steps)]
        perturbed = replacement.clone() if inserts else image.clone()
        for y, x in itertools.chain.from_iterable(map(pixels, taken)):
            perturbed[:, y, x] = (image if inserts else replacement)[:, y, x]
        logits = model(perturbed[None])[0].tolist()
        curve.append(math.exp(logits[target]) / sum(map(math.exp, logits)))
        shares.append(len(taken) / len(order))
    auc = sum((b - a) * (p + q) / 2 for (a, p), (b, q) in itertools.pairwise(zip(shares, curve, strict=True)))
    return auc, curve, shares


def test_deletion_by_hand():
    # The weights 4, 3, 2, 1, 0.5, -2 sum to 8.5 and are removed two at a time.
    found = deletion(linear, ONES, ONES * WEIGHTS, steps=3, softmax=False)
    assert_close(found.curve, tensor([[8.5, 1.5, -1.5, 0.0]]))
    assert_close(found.shares, tensor([0, 1 / 3, 2 / 3, 1]))
    assert_close(found.auc, tensor([(8.5 + 1.5 + 1.5 - 1.5 - 1.5 + 0) / 6]))
    assert found.removal == "zero"


@pytest.mark.parametrize(("patch", "steps"), [((4, 4), 6), ((2, 3), 7), ((8, 1), 12), ((1, 1), 9)])
@pytest.mark.parametrize("inserts", [False, True])
def test_against_the_slow_curve(classifier, photos, attributions, patch, steps, inserts):
    removal = Blur(2.0) if inserts else Mean()
    curve = insertion if inserts else deletion
    found = curve(classifier, photos, attributions, [3, 0, 4], patch_size=patch, steps=steps, removal=removal)
    everything = torch.ones(3, 1, 1, 1, dtype=torch.bool)
    replacements = removal.perturb(photos, everything)[:, 0]
    for example, target in enumerate([3, 0, 4]):
        auc, values, shares = slow_curve(
            classifier, photos[example], attributions[example], target, patch, steps, inserts, replacements[example]
        )
        assert_close(found.curve[example], tensor(values), rtol=1e-4, atol=1e-6)
        assert_close(found.auc[example], tensor(auc), rtol=1e-4, atol=1e-6)
        assert_close(found.shares, tensor(shares))


def test_the_attributions_scale_does_not_matter(classifier, photos, attributions):
    curves = [deletion(classifier, photos, c * attributions, 2, patch_size=4, steps=6).curve for c in (1, 1e-20)]
    assert_close(*curves, rtol=0, atol=0)


def test_neither_gradient_nor_inputs_are_touched(classifier, photos, attributions):
    inputs = photos.clone().requires_grad_()
    maps = attributions.clone().requires_grad_()
    found = deletion(classifier, inputs, maps, 1, patch_size=4, steps=2)
    assert not found.curve.requires_grad
    assert inputs.grad is None
    assert torch.equal(inputs, photos)
    assert torch.equal(maps, attributions)


def test_half_precision(classifier, photos, attributions):
    found = deletion(classifier.bfloat16(), photos.bfloat16(), attributions, 1, patch_size=4, steps=4)
    expected = deletion(classifier.float(), photos, attributions, 1, patch_size=4, steps=4)
    assert found.curve.dtype == torch.float32
    assert_close(found.curve, expected.curve, rtol=0.05, atol=0.02)


@pytest.mark.parametrize("curve", [deletion, insertion])
@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"steps": 0}, ValueError, "steps must be an integer, one or more, but got 0"),
        ({"steps": 2.5}, ValueError, "steps must be an integer, one or more, but got 2.5"),
        ({"steps": 7}, ValueError, "steps must be at most the number of patches, 6, but got 7"),
        ({"batch_size": 0}, ValueError, "batch_size must be an integer, one or more, but got 0"),
        ({"patch_size": 5}, ValueError, "patch_size must divide the image of 8x12 pixels, but got 5x5"),
        ({"patch_size": (3, 4)}, ValueError, "patch_size must divide the image of 8x12 pixels, but got 3x4"),
        ({"patch_size": 0}, ValueError, "patch_size must divide the image of 8x12 pixels, but got 0x0"),
        ({"patch_size": 4.0}, TypeError, "patch_size must be an integer or a tuple .* but got 4.0"),
        ({"patch_size": (4, 4, 4)}, TypeError, r"patch_size must be .* but got \(4, 4, 4\)"),
        ({"target": 5}, ValueError, "target must be from 0 to 4, as there are 5 classes, but got .*5"),
        ({"target": [0, 1]}, ValueError, r"one for all examples, or .* of 3, but got \[0, 1\]"),
        ({"target": (0, 1, 2)}, ValueError, r"of sizes \(5,\), but got \(0, 1, 2\)\. Pass a list"),
        ({"target": 1.0}, TypeError, "target must be a class index, or one per example.* but got 1.0"),
        ({"target": "cat"}, TypeError, "target must be a class index.* but got 'cat'"),
        ({"target": True}, TypeError, "target must be a class index.* but got True"),
        ({"removal": "blur"}, TypeError, r"removal must be one, such as Blur\(\).* but got 'blur'"),
        ({"target": None}, ValueError, r"target must be given for outputs \(examples, classes\), \(\d+, 5\), but got"),
    ],
)
def test_wrong_options(classifier, photos, attributions, curve, changes, error, message):
    options = {"target": 1, "patch_size": 4, "steps": 3, **changes}
    with pytest.raises(error, match=message):
        curve(classifier, photos, attributions, **options)
