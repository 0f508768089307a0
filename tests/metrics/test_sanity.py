"""Class sensitivity, and the rank correlation that it and the randomisation test share."""

import itertools

import pytest
import torch
from torch import nn, tensor
from torch.testing import assert_close

from captum_gmar.metrics import class_sensitivity
from captum_gmar.metrics.ranks import average_ranks, spearman

WEIGHTS = torch.randn(5, 3, 4, 6, generator=torch.Generator().manual_seed(0))


def linear(inputs):
    return torch.einsum("nchw,kchw->nk", inputs, WEIGHTS)


def gradient(inputs, target):
    return torch.autograd.grad(linear(inputs)[range(len(inputs)), target].sum(), inputs)[0]


@pytest.fixture
def photos():
    return torch.randn(3, 3, 4, 6, generator=torch.Generator().manual_seed(1))


def slow_spearman(a, b):
    """From the definition: Pearson's correlation of the ranks, ties sharing the mean of theirs."""

    def ranks(values):
        return [sum(v < value for v in values) + (sum(v == value for v in values) - 1) / 2 for value in values]

    x, y = ranks(a), ranks(b)
    x, y = ([v - sum(z) / len(z) for v in z] for z in (x, y))
    return sum(p * q for p, q in zip(x, y, strict=True)) / (sum(p * p for p in x) * sum(q * q for q in y)) ** 0.5


def test_ranks_by_hand():
    found = average_ranks(tensor([[3.0, 1.0, 3.0, 7.0], [0.0, 0.0, 0.0, -1.0]]))
    assert_close(found, tensor([[1.5, 0.0, 1.5, 3.0], [2.0, 2.0, 2.0, 0.0]]))


@pytest.mark.parametrize("levels", [3, 10, 1000])
def test_spearman_against_its_definition(levels):
    generator = torch.Generator().manual_seed(levels)
    a, b = (torch.randint(levels, (20, 12), generator=generator).double() for _ in range(2))
    expected = [slow_spearman(*rows) for rows in zip(a.tolist(), b.tolist(), strict=True)]
    assert_close(spearman(a, b), tensor(expected, dtype=torch.float64))


def test_spearman_without_ties_is_one_minus_the_squared_differences():
    ordered = torch.arange(5.0)
    for order in itertools.permutations(range(5)):
        other = ordered[list(order)]
        expected = 1 - 6 * float(((ordered - other) ** 2).sum()) / (5 * (25 - 1))
        assert float(spearman(ordered[None], other[None])) == pytest.approx(expected, abs=1e-6)


def test_spearman_at_its_ends():
    values = torch.randn(100, 77, generator=torch.Generator().manual_seed(0))
    assert torch.equal(spearman(values, values.exp()), torch.ones(100))  # exactly
    assert_close(spearman(values, -values), -torch.ones(100))
    flat = torch.ones(100, 77)
    assert torch.equal(spearman(values, flat), torch.zeros(100))
    assert torch.equal(spearman(flat, 2 * flat), torch.ones(100))


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
