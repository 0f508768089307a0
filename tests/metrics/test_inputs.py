"""Images and maps that metrics accept or reject."""

import pytest
import torch

from captum_gmar.metrics import deletion, insertion


@pytest.mark.parametrize("curve", [deletion, insertion])
def test_wrong_tensors(classifier, photos, attributions, curve):
    spoilt = attributions.clone()
    spoilt[1, 0, 0, 0] = torch.nan
    for inputs, maps, error, message in (
        (photos, attributions[:2], ValueError, r"the shape of the inputs, \(3, 3, 8, 12\), but got \(2, 3, 8, 12\)"),
        (photos, attributions.sum(1), ValueError, r"but got \(3, 8, 12\). Spread the relevance"),
        (photos, spoilt, ValueError, "attributions must be finite, but got NaN or infinity in example 1"),
        (photos, -attributions / 0, ValueError, "NaN or infinity in example 0"),
        (photos, attributions.numpy(), TypeError, "attributions must be a tensor .* but got ndarray"),
        (photos[:0], attributions[:0], ValueError, r"at least one example, but got torch.float32 of shape \(0, 3"),
        (photos[0], attributions[0], ValueError, r"\(examples, channels, height, width\).* of shape \(3, 8, 12\)"),
        (photos.int(), attributions, ValueError, "inputs must be floating-point .*, but got torch.int32"),
        ((photos,), attributions, TypeError, "inputs must be a tensor .* but got tuple"),
    ):
        with pytest.raises(error, match=message):
            curve(classifier, inputs, maps, 1, patch_size=4, steps=3)


@pytest.mark.parametrize("curve", [deletion, insertion])
def test_relevance_of_patches_is_taken_as_it_is(classifier, photos, attributions, curve):
    relevance = attributions.sum(1).reshape(3, 2, 4, 3, 4).sum((2, 4))
    expected = curve(classifier, photos, attributions, 1, patch_size=4, steps=3)
    for options in ({}, {"patch_size": (4, 4)}):
        found = curve(classifier, photos, relevance, 1, steps=3, **options)
        assert torch.equal(found.curve, expected.curve)


@pytest.mark.parametrize(
    ("relevance", "message"),
    [
        (torch.ones(2, 2, 3), r"relevance must be of shape \(examples, rows, columns\) for 3 examples .* \(2, 2, 3\)"),
        (torch.ones(3, 2, 0), r"got \(3, 2, 0\)"),
        (torch.ones(3, 2, 9), r"whole patches over 8x12 pixels, but got \(3, 2, 9\)"),
        (torch.ones(3, 2, 3) / 0, "attributions must be finite, but got NaN or infinity in example 0"),
    ],
)
def test_wrong_relevance(classifier, photos, relevance, message):
    with pytest.raises(ValueError, match=message):
        deletion(classifier, photos, relevance, 1, steps=2)
