"""Class sensitivity against maps made by hand."""

import pytest
import torch
from torch import nn, tensor
from torch.testing import assert_close

from captum_gmar.metrics import class_sensitivity
from metrics.by_definition import slow_spearman

WEIGHTS = torch.randn(5, 3, 4, 6, generator=torch.Generator().manual_seed(0))


def linear(inputs):
    return torch.einsum("nchw,kchw->nk", inputs, WEIGHTS)


def gradient(inputs, target):
    return torch.autograd.grad(linear(inputs)[range(len(inputs)), target].sum(), inputs)[0]


@pytest.fixture
def photos():
    return torch.randn(3, 3, 4, 6, generator=torch.Generator().manual_seed(1))


def test_against_the_two_maps_made_by_hand(photos):
    found = class_sensitivity(gradient, linear, photos, patch_size=2)
    order = linear(photos).argsort(1, descending=True)
    maps = WEIGHTS.sum(1).reshape(5, 2, 2, 3, 2).sum((2, 4)).flatten(1).tolist()  # of this model, for any image
    expected = [1 - slow_spearman(maps[first], maps[second]) for first, second in order[:, :2].tolist()]
    assert_close(found, tensor(expected))
    assert (found > 0.1).all()


@pytest.mark.parametrize("patch_size", [None, 2])
def test_a_method_blind_to_the_class_scores_exactly_zero(photos, patch_size):
    def saliency_of_all(inputs, target):
        return torch.autograd.grad(linear(inputs).square().sum(), inputs)[0].abs()

    assert torch.equal(class_sensitivity(saliency_of_all, linear, photos, patch_size=patch_size), torch.zeros(3))


def test_opposite_maps_score_two(photos):
    def opposite(inputs, target):
        sign = tensor([1.0 if t == top else -1.0 for t, top in zip(target, linear(inputs).argmax(1), strict=True)])
        return inputs.detach() * sign.view(-1, 1, 1, 1)

    assert_close(class_sensitivity(opposite, linear, photos), torch.full((3,), 2.0))


def test_a_map_for_one_class_only(photos):
    def first_only(inputs, target):
        return inputs.detach() * (tensor(target) == linear(inputs).argmax(1)).view(-1, 1, 1, 1)

    assert_close(class_sensitivity(first_only, linear, photos), torch.ones(3))


def test_each_example_is_explained_for_its_own_top_two_classes(photos):
    asked = []

    def attribute(inputs, target):
        assert inputs.requires_grad
        asked.append(target)
        return torch.ones_like(inputs)

    class_sensitivity(attribute, linear, photos)
    order = linear(photos).argsort(1, descending=True).tolist()
    assert asked == [[row[0] for row in order], [row[1] for row in order]]
    assert len(set(asked[0])) > 1  # the test would not tell otherwise


def test_a_batch_equals_its_singles_and_probabilities_do_as_well(photos):
    found = class_sensitivity(gradient, linear, photos)
    singles = [class_sensitivity(gradient, lambda x: linear(x).softmax(1), photos[i : i + 1]) for i in range(3)]
    assert_close(found, torch.cat(singles))


def test_captum_s_methods(photos):
    from captum.attr import InputXGradient, IntegratedGradients

    model = nn.Sequential(nn.Flatten(), nn.Linear(72, 8), nn.Tanh(), nn.Linear(8, 5))
    for method in (InputXGradient(model), IntegratedGradients(model)):
        assert (class_sensitivity(method.attribute, model, photos) > 0).all()
    assert not photos.requires_grad


def test_wrong_arguments(photos):
    for arguments, error, message in (
        ((gradient, linear, photos[:0]), ValueError, "at least one example"),
        ((gradient, linear, [photos]), TypeError, "inputs must be a tensor"),
        ((gradient, lambda x: x.mean((1, 2, 3)), photos), ValueError, r"at least two classes but got .* \(3,\)"),
        ((gradient, lambda x: x.mean((2, 3))[:, :1], photos), ValueError, r"at least two classes but got .* \(3, 1\)"),
        ((gradient, lambda x: (linear(x),), photos), TypeError, r"must return a tensor .* Got tuple instead"),
        ((gradient, lambda x: linear(x) / 0 * 0, photos), FloatingPointError, "outputs without NaN"),
        ((lambda x, target: x.sum(1), linear, photos), ValueError, "in the shape of the inputs"),
        ((lambda x, target: x / 0, linear, photos), ValueError, "finite attributions but got NaN or infinity"),
        ((lambda x, target: (x,), linear, photos), TypeError, "attributions must be a tensor .* Got tuple instead"),
    ):
        with pytest.raises(error, match=message):
            class_sensitivity(*arguments)
    with pytest.raises(ValueError, match="patch size that divides the image of 4x6 pixels but got 3x3"):
        class_sensitivity(gradient, linear, photos, patch_size=3)
