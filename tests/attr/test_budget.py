"""A budget of passes: the rule beside an oracle of loops in double precision, its cost, and what leaves it as it is."""

import copy
import math

import numpy as np
import pytest
import torch
import transformers
from installed import HAS_TRANSFORMERS_5
from oracle import attcat, evidence_parts, log_odds, with_truncations
from torch.testing import assert_close

from captum_gmar import GMARAttribution, TokenEvidence, get_method
from captum_gmar.attr.budget import make_cells, propose_map, removed_patches, smooth_covariance
from captum_gmar.attr.catalogue import METHODS
from captum_gmar.engine.models.layers import transformer_layers
from captum_gmar.metrics import Blur, Mean

SIDE = 4  # patches of 8 x 8 pixels
CELLS = [(0.25, False, 0), (0.25, True, 1), (0.5, False, 1), (0.5, True, 0), (0.75, False, 0), (0.75, True, 1)]


def candidates_of(vit, images, targets):
    """By the formulas: token evidence, what CLS read, all layers, the upper ones and AttCAT (N, 5, T)."""
    layers = transformer_layers(vit)
    dense = with_truncations(vit, layers, lambda model, pixels: model(pixels).logits, images, targets)
    dense.patches = SIDE**2
    held, read, left = evidence_parts(dense)
    mean, upper = sum(held) / len(held), sum(held[len(held) // 2 :]) / math.ceil(len(held) / 2)
    weighted = attcat(dense, balanced=True, of=log_odds)[:, 0]
    return torch.stack([mean + read + left, read, mean, upper, weighted], 1)


@torch.no_grad()
def readouts_of(vit, image, target, order, cell):
    """The logit and the probability of an image of which the first patches of an order are removed, or alone kept."""
    share, keeps, fill = cell
    first = order[: round(share * len(order))]
    other = (Mean(), Blur())[fill].replacement(image[None], torch.ones(1, 1, SIDE, SIDE, dtype=torch.bool))
    changed, other = image.clone(), other.expand(1, 1, *image.shape)[0, 0]
    for patch in range(SIDE**2):
        if (patch in first) != keeps:
            row, column = 8 * (patch // SIDE), 8 * (patch % SIDE)
            changed[:, row : row + 8, column : column + 8] = other[:, row : row + 8, column : column + 8]
    logits = vit(changed[None]).logits[0]
    return np.array([float(logits[target]), float(logits.softmax(0)[target])])


def first_of_largest(gains):
    """Of maps with the same removed patches the first."""
    return next(number for number, gain in enumerate(gains) if gain > max(gains) - 1e-5)


def proposed(maps, orders, values, cells):
    """Gaussian conditioning on what differs between the maps of a cell, by contrasts and inverses."""
    kept = np.zeros((len(maps), len(cells), SIDE**2))
    for (c, d, j), _ in np.ndenumerate(kept):
        kept[c, d, j] = (j in orders[c][: round(cells[d][0] * SIDE**2)]) == cells[d][1]
    signs = np.array([1.0 if keeps else -1.0 for _, keeps, _ in cells])
    best = first_of_largest(values @ signs)
    slope = max(values[best] @ signs, 0) / (signs @ kept[best] @ maps[best])
    contrasts = np.diff(np.eye(len(maps)), axis=0)  # of each map and the next
    design = np.einsum("kc,cdp->kdp", contrasts, kept).reshape(-1, SIDE**2)
    residual = (contrasts @ values).reshape(-1) - slope * design @ maps[best]
    places = [(j // SIDE, j % SIDE) for j in range(SIDE**2)]
    prior = np.exp([[-((a - c) ** 2 + (b - d) ** 2) / 2 for c, d in places] for a, b in places])
    centred = (kept - kept.mean(0)).reshape(-1, SIDE**2)
    variance = np.trace(centred @ prior @ centred.T) / len(design)
    noise = np.kron(contrasts @ contrasts.T, np.eye(len(cells)))
    results = []
    for share in (0.01, 0.1, 1, 10):
        total = design @ prior @ design.T + share * variance * noise
        scale = residual @ np.linalg.solve(total, residual) / len(residual)
        likelihood = -len(residual) * np.log(scale) - np.linalg.slogdet(total)[1]
        results.append((likelihood, prior @ design.T @ np.linalg.solve(total, residual)))
    return slope * maps[best] + max(results, key=lambda result: result[0])[1]


@torch.no_grad()
def chosen_by_loops(vit, image, target, maps, forwards):
    """The map (P,) that the rule chooses of candidates (C, P), and of those that it proposes."""
    cells = CELLS[: 2 if forwards < 24 else 4 if forwards < 48 else 6]
    maps, orders, readouts = [*maps[: forwards // len(cells)]], [], []
    while True:
        for values in maps[len(orders) :]:
            orders.append(sorted(range(SIDE**2), key=lambda patch, values=values: -values[patch]))
            readouts.append([readouts_of(vit, image, target, orders[-1], cell) for cell in cells])
        intact = vit(image[None]).logits[0]
        ends = np.array([*readouts[0], [float(intact[target]), float(intact.softmax(0)[target])]])
        values = (np.array(readouts) / (ends.max(0) - ends.min(0))).sum(-1)
        if len(maps) == forwards // len(cells):
            gains = [sum(v if keeps else -v for v, (_, keeps, _) in zip(row, cells, strict=True)) for row in values]
            return maps[first_of_largest(gains)]
        more = proposed(np.array(maps), orders, values, cells)
        maps.append(more / np.abs(more).sum())


@pytest.mark.parametrize("passes", [3, 5, 9, 17])
def test_the_rule_is_that_of_loops(make_vit, images, passes):
    vit, images = make_vit(initializer_range=0.3).double(), images.double()
    targets = [3, 0, 9, 1]
    all_tokens = candidates_of(vit, images, targets)
    relevance = TokenEvidence(vit).relevance(images, targets, passes=passes)
    for example, target in enumerate(targets):
        tokens = all_tokens[example] / all_tokens[example].abs().sum(1, keepdim=True)
        maps = tokens[:, -(SIDE**2) :].detach().numpy()
        expected = torch.tensor(chosen_by_loops(vit, images[example], target, maps, 3 * (passes - 1)))
        expected = expected / expected.abs().sum() * (1 - tokens[0, : -(SIDE**2)].abs().sum().detach())
        assert_close(relevance[example].flatten(), expected, atol=1e-9, rtol=1e-6)


def test_a_sum_over_patches_is_found():
    """Values that are a smooth sum over kept patches: the map that is proposed is nearer to it than any measured."""
    generator = torch.Generator().manual_seed(0)
    cells = make_cells(3)
    covariance = smooth_covariance(6, 6)
    truth = torch.linalg.cholesky(covariance + 1e-9 * torch.eye(36)) @ torch.randn(36, generator=generator).double()
    maps = truth + 0.8 * truth.std() * torch.randn(1, 12, 36, generator=generator).double()
    values = (~removed_patches(maps, cells)).double() @ truth
    found = propose_map(maps, values, cells, covariance)[0]

    def likeness(values):
        return float(torch.corrcoef(torch.stack([values, truth]))[0, 1])

    assert likeness(found) > max(map(likeness, maps[0]))


def test_one_pass_is_as_before(vit, images):
    expected = TokenEvidence(vit).relevance(images, 3)
    assert torch.equal(TokenEvidence(vit).relevance(images, 3, passes=1), expected)
    assert torch.equal(TokenEvidence(vit, passes=9).relevance(images, 3, passes=np.int64(1)), expected)


@pytest.mark.parametrize("passes", [1, 2, 3, 4, 5, 9, 17, 20])
def test_cost(vit, images, passes):
    """A backward pass counts as two forward passes."""
    cost = {"forward": 0, "backward": 0}

    def forward(pixels):
        logits = vit(pixels).logits
        cost["forward"] += len(pixels)
        if logits.requires_grad:
            logits.register_hook(lambda gradient: cost.update(backward=cost["backward"] + len(gradient)))
        return logits

    TokenEvidence(vit, forward_func=forward).relevance(images, 3, passes=passes)
    assert (cost["forward"] + 2 * cost["backward"]) / 3 / len(images) <= 1.05 * passes
    assert cost["backward"] == len(images)


def test_it_is_deterministic_and_leaves_the_model_as_it_was(vit, images):
    before = copy.deepcopy(vit.state_dict())
    first, second = (TokenEvidence(vit).relevance(images, 3, passes=9) for _ in range(2))
    assert torch.equal(first, second)
    assert all(torch.equal(before[name], value) for name, value in vit.state_dict().items())
    assert all(parameter.grad is None for parameter in vit.parameters())


def test_many_targets_and_images_are_as_one_by_one(make_vit, images):
    evidence, images = TokenEvidence(make_vit().double()), images.double()
    targets = torch.tensor([[1, 2], [3, 4], [5, 6], [7, 8]])
    maps = evidence.explain(images, targets, passes=9).relevance
    chosen = evidence.explain(images, lambda logits: logits.topk(2).indices, internal_batch_size=3, passes=5)
    for example, classes in enumerate(targets.tolist()):
        for number, target in enumerate(classes):
            alone = evidence.relevance(images[example : example + 1], target, passes=9)
            assert_close(maps[example, number], alone[0])
        alone = evidence.relevance(images[example : example + 1], chosen.targets[example, 1:], passes=5)
        assert_close(chosen.relevance[example, 1], alone[0])


def test_forms_of_targets_and_contrasts(make_vit, images):
    evidence, images = TokenEvidence(make_vit().double(), passes=5), images.double()
    expected = evidence.relevance(images, [1, 1, 1, 1], contrast=torch.tensor([4, 4, 4, 4]))
    assert_close(evidence.relevance(images, 1, contrast=4), expected)
    assert_close(evidence.relevance(images, torch.tensor(1), contrast=(4,)), expected)
    assert not torch.allclose(evidence.relevance(images, 1), expected)


@pytest.mark.skipif(not HAS_TRANSFORMERS_5, reason="older ones take other arguments")
def test_additional_arguments_and_pixels_beside_the_patches(make_vit):
    evidence, image = TokenEvidence(make_vit().double()), torch.randn(2, 3, 37, 43).double()
    attributions = evidence.attribute(image, 3, (None, True), passes=5)
    assert attributions.shape == image.shape
    assert not attributions[..., 32:, :].any()
    assert not attributions[..., 40:].any()


def test_memory_is_shared_out_over_fewer_images(vit, images):
    def forward(pixels):
        if len(pixels) > 4:
            raise torch.OutOfMemoryError("no room")
        return vit(pixels).logits

    expected = TokenEvidence(vit).relevance(images, 3, passes=5)
    assert_close(TokenEvidence(vit, forward_func=forward).relevance(images, 3, passes=5), expected)


@pytest.mark.parametrize("passes", [0, -3, 2.5, True, "5"])
def test_fault_no_number_of_passes(vit, images, passes):
    with pytest.raises(ValueError, match=r"passes must be an integer, one or more, but got .*"):
        TokenEvidence(vit).attribute(images, 3, passes=passes)
    with pytest.raises(ValueError, match="passes must be an integer"):
        TokenEvidence(vit, passes=passes)


SMALL = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
NOT_ONE_GRID = {
    "windows": (
        lambda: transformers.SwinForImageClassification(
            transformers.SwinConfig(image_size=32, embed_dim=8, depths=[1, 1], num_heads=[1, 1], window_size=4)
        ),
        (1, 3, 32, 32),
    ),
    "videos": (
        lambda: transformers.VideoMAEForVideoClassification(
            transformers.VideoMAEConfig(**SMALL, image_size=32, patch_size=8, num_frames=4)
        ),
        (1, 4, 3, 32, 32),
    ),
    "detectors": (
        lambda: transformers.YolosForObjectDetection(
            transformers.YolosConfig(**SMALL, image_size=[32, 32], patch_size=8, num_detection_tokens=2)
        ),
        (1, 3, 32, 32),
    ),
}


@pytest.mark.parametrize("kind", NOT_ONE_GRID)
def test_fault_models_without_one_patch_grid(kind):
    make, shape = NOT_ONE_GRID[kind]
    with pytest.raises(ValueError, match="passes must be 1 for a model without one patch grid, but got 5"):
        TokenEvidence(make().eval()).attribute(torch.randn(shape), 1, passes=5)


def test_fault_methods_without_a_budget(vit, images):
    with pytest.raises(TypeError, match="passes"):
        GMARAttribution(vit).attribute(images, 3, passes=5)


def test_names(vit, images):
    expected = TokenEvidence(vit).relevance(images, 3, passes=3)
    assert torch.equal(get_method("Token-Evidence@3", vit).relevance(images, 3), expected)
    with pytest.raises(ValueError, match=r"method must be token-evidence to take passes, but got 'gmar-l1@3'"):
        get_method("gmar-l1@3", vit)
    for wrong in ("token-evidence@", "token-evidence@x", "token-evidence@2.5", "nothing@3"):
        with pytest.raises(ValueError, match="method must be one of"):
            get_method(wrong, vit)
    with pytest.raises(ValueError, match="passes must be a whole number above zero, but got 0"):
        get_method("token-evidence@0", vit)
    assert "token-evidence@5" in METHODS
    assert all(name not in METHODS for name in ("token-evidence@0", "token-evidence@x", "gmar-l1@5", "nothing@5"))
