"""Localisation: cases by hand, slow definitions, and ties."""

import itertools

import pytest
import torch
from torch import tensor
from torch.testing import assert_close

from captum_gmar.metrics import (
    boxes_to_masks,
    pointing_game,
    relevance_mass_accuracy,
    relevance_rank_accuracy,
    uniform_map,
)

ACCURACIES = [relevance_mass_accuracy, relevance_rank_accuracy]


@pytest.fixture
def attributions():
    return torch.randn(4, 3, 9, 13, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def masks():
    return torch.rand(4, 9, 13, generator=torch.Generator().manual_seed(2)) < 0.3


def pixels(mask):
    return {(y, x) for y, x in itertools.product(range(9), range(13)) if mask[y, x]}


def relevance(attribution):
    return {(y, x): sum(attribution[:, y, x].tolist()) for y, x in itertools.product(range(9), range(13))}


def test_pointing_game_against_its_definition(attributions, masks):
    found = pointing_game(attributions, masks)
    for example in range(4):
        scores = relevance(attributions[example])
        assert float(found.score[example]) == (max(scores, key=scores.__getitem__) in pixels(masks[example]))
        assert float(found.centre[example]) == ((4, 6) in pixels(masks[example]))
    assert {float(value) for value in torch.cat(found)} == {0.0, 1.0}  # hits and misses occur


def test_pixels_that_share_the_maximum_share_the_score():
    attributions = torch.zeros(1, 1, 4, 4)
    attributions[..., 2:, :2] = 5  # a patch of four pixels
    masks = torch.zeros(1, 4, 4, dtype=torch.bool)
    masks[0, 2, :] = masks[0, 3, 0] = True  # three of them
    assert_close(pointing_game(attributions, masks).score, tensor([0.75]))


@pytest.mark.parametrize(
    ("size", "middle"), [((3, 5), [(1, 2)]), ((2, 3), [(0, 1), (1, 1)]), ((4, 2), [(1, 0), (1, 1), (2, 0), (2, 1)])]
)
def test_the_centre_of_images_of_even_and_odd_size(size, middle):
    for y, x in itertools.product(*map(range, size)):
        masks = torch.zeros(1, *size, dtype=torch.bool)
        masks[0, y, x] = True
        centre = pointing_game(torch.randn(1, 1, *size), masks).centre
        assert float(centre) == pytest.approx(((y, x) in middle) / len(middle))


def test_accuracies_against_their_definitions(attributions, masks):
    mass, rank = (accuracy(attributions, masks) for accuracy in ACCURACIES)
    for example in range(4):
        scores, members = relevance(attributions[example]), pixels(masks[example])
        positive = {pixel: max(0.0, score) for pixel, score in scores.items()}
        share = sum(positive[pixel] for pixel in members) / sum(positive.values())
        assert float(mass[example]) == pytest.approx(share, rel=1e-5)
        top = sorted(scores, key=scores.__getitem__, reverse=True)[: len(members)]
        assert float(rank[example]) == pytest.approx(len(members & set(top)) / len(members), rel=1e-6)


def test_rank_accuracy_with_ties_is_the_mean_over_all_orders():
    scores = [2.0, 1.0, 1.0, 1.0, 0.0, 0.0]
    permutations = itertools.permutations(range(6))
    orders = [order for order in permutations if all(scores[a] >= scores[b] for a, b in itertools.pairwise(order))]
    for size in range(1, 7):
        for chosen in itertools.combinations(range(6), size):
            expected = sum(len(set(order[:size]) & set(chosen)) / size for order in orders) / len(orders)
            mask = tensor([[[i in chosen for i in range(6)]]])
            found = relevance_rank_accuracy(tensor(scores).view(1, 1, 1, 6), mask)
            assert float(found) == pytest.approx(expected)


@pytest.mark.parametrize("accuracy", ACCURACIES)
def test_a_uniform_map_scores_the_area(masks, accuracy):
    maps = uniform_map(torch.zeros(4, 3, 9, 13))
    area = masks.float().mean((1, 2))
    assert_close(accuracy(maps, masks), area)
    assert_close(pointing_game(maps, masks).score, area)


def test_a_map_without_positive_relevance_counts_as_uniform(masks):
    area = masks.float().mean((1, 2))
    for value in (0.0, -1.0):
        assert_close(relevance_mass_accuracy(torch.full((4, 3, 9, 13), value), masks), area)


def test_boxes_by_hand():
    masks = boxes_to_masks([[(0, 0, 2, 1)], [(1, 1, 3, 2), (0, 0, 1, 2)]], height=2, width=3)
    assert torch.equal(masks.int(), tensor([[[1, 1, 0], [0, 0, 0]], [[1, 0, 0], [1, 1, 1]]]))
    assert masks.dtype == torch.bool


def test_a_box_holds_the_pixels_whose_centres_it_holds():
    # Along x from 0.4 to 2.6: the centres 0.5, 1.5 and 2.5. Along y from 0.5 to 1.5: the first only.
    assert torch.equal(boxes_to_masks([[(0.4, 0.5, 2.6, 1.5)]], 3, 4)[0].int().sum(0), tensor([1, 1, 1, 0]))
    assert torch.equal(boxes_to_masks([[(0.4, 0.5, 2.6, 1.5)]], 3, 4)[0].int().sum(1), tensor([3, 0, 0]))


def test_boxes_as_lists_and_tensors():
    expected = boxes_to_masks([[(0, 0, 2, 1)]], 2, 3)
    for boxes in ([[[0.0, 0.0, 2.0, 1.0]]], [tensor([[0, 0, 2, 1]])], tensor([[[0.0, 0.0, 2.0, 1.0]]])):
        assert torch.equal(boxes_to_masks(boxes, 2, 3), expected)


@pytest.mark.parametrize(
    ("boxes", "message"),
    [
        ([], "boxes must be at least one for each"),
        ([[(0, 0, 1, 1)], []], "boxes must be at least one for each"),
        ([[(0, 0, 4, 1)]], r"inside the image of 3x2 pixels, .* but got \(0, 0, 4, 1\). Scale boxes"),
        ([[(-1, 0, 1, 1)]], r"inside the image of 3x2 pixels.* but got \(-1, 0, 1, 1\)"),
        ([[(0, 0, 1, 3)]], r"inside the image of 3x2 pixels.* but got \(0, 0, 1, 3\)"),
        ([[(1, 0, 1, 1)]], r"x0 < x1 and y0 < y1, but got \(1, 0, 1, 1\)"),
        ([[(0, 2, 1, 1)]], r"x0 < x1 and y0 < y1, but got \(0, 2, 1, 1\)"),
        ([[(0.6, 0, 1.4, 1)]], r"the centre of a pixel, but got \(0.6, 0, 1.4, 1\)"),
        ([[(0, 0, 1)]], r"four finite numbers .* but got \(0, 0, 1\)"),
        ([[(0, 0, float("nan"), 1)]], "four finite numbers"),
    ],
)
def test_wrong_boxes(boxes, message):
    with pytest.raises(ValueError, match=message):
        boxes_to_masks(boxes, height=2, width=3)


def test_wrong_sizes_of_masks_from_boxes():
    for size in ((0, 3), (2, -1), (2.0, 3)):
        with pytest.raises(ValueError, match="must be an integer, one or more"):
            boxes_to_masks([[(0, 0, 1, 1)]], *size)


@pytest.mark.parametrize("score", [*ACCURACIES, pointing_game])
def test_wrong_masks_and_maps(attributions, masks, score):
    empty = masks.clone()
    empty[2] = False
    spoilt = attributions.clone()
    spoilt[3, 1, 0, 0] = torch.inf
    for maps, wrong, error, message in (
        (attributions, masks.float(), TypeError, r"boolean tensor.* but got torch.float32\. Pass `masks > 0`"),
        (attributions, masks.numpy(), TypeError, "boolean tensor.* but got ndarray"),
        (attributions, masks[:3], ValueError, r"masks must be of shape \(4, 9, 13\), .* but got \(3, 9, 13\)"),
        (attributions, masks[:, None], ValueError, r"masks must be of shape \(4, 9, 13\), .* but got \(4, 1, 9, 13\)"),
        (
            attributions,
            masks.transpose(1, 2),
            ValueError,
            r"masks must be of shape \(4, 9, 13\), .* but got \(4, 13, 9\)",
        ),
        (attributions, empty, ValueError, "masks must each mark an object, but got an empty mask for example 2"),
        (spoilt, masks, ValueError, "attributions must be finite, but got NaN or infinity in example 3"),
        (attributions.sum(1), masks, ValueError, r"attributions must be .*, but got \(4, 9, 13\)"),
        (attributions[:0], masks[:0], ValueError, r"one or more, but got \(0, 3, 9, 13\)"),
        (attributions.tolist(), masks, TypeError, "attributions must be a tensor .* but got list"),
    ):
        with pytest.raises(error, match=message):
            score(maps, wrong)
