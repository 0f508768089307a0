"""Curves against loops over examples, counts and heads, whose hooks set projection inputs to zero."""

import math
import random

import numpy as np
import pytest
import torch
from snapshots import state
from torch.testing import assert_close

from ablation.test_heads import Masked
from captum_gmar.ablation import ablate_heads, head_ablation_curve, mean_head_outputs, ranked_heads

IMPORTANCE = torch.rand(3, 3, generator=torch.Generator().manual_seed(3))
TARGETS = [3, 0, 9, 3]
COUNTS = [0, 2, 5, 9]


def naive(vit, images, order, fill=None):
    """Compute accuracy, logit and probability (K, 3, N) image by image."""
    rows = []
    for count in COUNTS:
        mask = torch.ones(3, 3)
        for layer, head in order[:count]:
            mask[layer, head] = 0
        for image, target in zip(images, TARGETS, strict=True):
            with Masked(vit, mask, None if fill is None else fill * (1 - mask)[..., None]), torch.no_grad():
                logits = vit(image[None]).logits[0]
            rows.append([float(logits.argmax() == target), logits[target], logits.exp()[target] / logits.exp().sum()])
    return torch.tensor(rows).view(len(COUNTS), 4, 3).transpose(1, 2)


@pytest.fixture
def batches(images):
    return [(images[:3], TARGETS[:3]), (images[3:], torch.tensor(TARGETS[3:]))]


@pytest.fixture
def trained(vit, images):
    """Return a model that predicts some of the targets."""
    with torch.no_grad():
        vit.classifier.bias[3] += vit(images).logits.max() / 2
    assert (vit(images).logits.argmax(1) == torch.tensor(TARGETS)).float().mean() not in (0, 1)
    return vit


@pytest.mark.parametrize("order", ["least", "most"])
@pytest.mark.parametrize("within_layers", [False, True])
def test_a_naive_loop(trained, images, batches, order, within_layers):
    found = head_ablation_curve(trained, batches, IMPORTANCE, order=order, counts=COUNTS, within_layers=within_layers)
    heads = ranked_heads(IMPORTANCE, within_layers=within_layers)
    heads = heads if order == "least" else heads[::-1]
    assert found.orders == [heads]
    expected = naive(trained, images, heads)
    for index, name in enumerate(("accuracy", "logit", "probability")):
        assert_close(getattr(found, name)[0], expected[:, index], rtol=1e-4, atol=1e-5)
    assert found.counts.tolist() == COUNTS
    assert found.accuracy.unique().tolist() == [0, 1]


def test_the_mean_in_place_of_heads(vit, images, batches):
    fill = mean_head_outputs(vit, images)
    found = head_ablation_curve(vit, batches, IMPORTANCE, counts=COUNTS, fill=fill)
    expected = naive(vit, images, ranked_heads(IMPORTANCE), fill)
    assert_close(found.logit[0], expected[:, 1], rtol=1e-4, atol=1e-5)


def test_random_orders(vit, images, batches):
    found = head_ablation_curve(vit, batches, IMPORTANCE, order="random", counts=COUNTS, repeats=3, seed=5)
    generator, heads = random.Random(5), [(layer, head) for layer in range(3) for head in range(3)]
    expected = [generator.sample(heads, 9) for _ in range(3)]
    assert found.orders == expected
    assert len({tuple(order) for order in expected}) == 3
    for index in range(3):
        assert_close(found.probability[index], naive(vit, images, expected[index])[:, 2], rtol=1e-4, atol=1e-5)
    again = head_ablation_curve(vit, batches, -IMPORTANCE, order="random", counts=[9], repeats=3, seed=6)
    assert again.orders != expected


def test_means_and_intervals(vit, batches):
    found = head_ablation_curve(vit, batches, IMPORTANCE, order="random", counts=COUNTS, repeats=3)
    values = found.logit.numpy()
    assert_close(found.mean("logit").numpy(), values.mean((0, 2)))
    assert_close(found.margin("logit").numpy(), 1.96 * values.mean(0).std(-1, ddof=1) / math.sqrt(4))
    assert_close(found.order_means("logit").numpy(), values.mean(2))
    trapezoid = np.trapezoid if hasattr(np, "trapezoid") else np.trapz
    assert_close(found.areas("logit").numpy(), trapezoid(values, np.divide(COUNTS, 9), axis=1).astype(float))


def test_counts_by_default(vit, images):
    found = head_ablation_curve(vit, [(images, 3)], IMPORTANCE)
    assert found.counts.tolist() == list(range(10))
    with torch.no_grad():
        assert torch.equal(found.logit[0, 0], vit(images).logits[:, 3])
    with ablate_heads(vit, dict.fromkeys(range(3), range(3))):
        assert_close(found.logit[0, -1], vit(images).logits[:, 3].detach())


def test_targets_from_the_end_and_a_forward_func(vit, images):
    found = head_ablation_curve(vit, [(images, -1)], IMPORTANCE, counts=[0, 4])
    expected = head_ablation_curve(vit, [(images, 9)], IMPORTANCE, counts=[0, 4], forward_func=lambda x: vit(x).logits)
    for name in ("accuracy", "logit", "probability"):
        assert torch.equal(getattr(found, name), getattr(expected, name))


def test_the_model_is_left_as_it_was(make_vit, images):
    vit = make_vit(attn_implementation="eager")
    before = state(vit)
    assert not head_ablation_curve(vit, [(images, 3)], IMPORTANCE, counts=COUNTS).logit.requires_grad
    assert state(vit) == before


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"importance": [[1.0]]}, TypeError, r"importance must be a tensor \(layers, heads\), but got list"),
        (
            {"importance": IMPORTANCE[:2], "counts": [0]},
            ValueError,
            r"importance must be of shape \(3, 3\), but got \(2, 3\)",
        ),
        ({"importance": IMPORTANCE[:, :2], "counts": None}, ValueError, r"shape \(3, 3\).* but got \(3, 2\)"),
        ({"order": "worst"}, ValueError, r"order must be one of \['least', 'most', 'random'\], but got 'worst'"),
        ({"counts": []}, ValueError, r"counts must be ascending integers from 0 to 9, the heads, but got \[\]"),
        ({"counts": [3, 1]}, ValueError, r"counts must be ascending integers .* but got \[3, 1\]"),
        ({"counts": [1, 1]}, ValueError, r"counts must be ascending integers .* but got \[1, 1\]"),
        ({"counts": [-1]}, ValueError, r"counts must be ascending integers from 0"),
        ({"counts": [10]}, ValueError, r"counts must be ascending integers from 0"),
        ({"counts": [1.0]}, ValueError, r"counts must be ascending integers from 0"),
        ({"repeats": 2}, ValueError, r'repeats must be 1 for an order that is not "random", but got 2'),
        ({"repeats": 0}, ValueError, r"repeats must be an integer, one or more, but got 0"),
        ({"fill": torch.zeros(3, 3, 1)}, ValueError, r"fill must be of shape \(layers, 3, 8\)"),
        ({"batches": []}, ValueError, r"batches must hold at least one, but got none"),
        ({"batches": [torch.zeros(2)]}, TypeError, r"batches must be pairs"),
        ({"model": len}, TypeError, r"model must be a torch\.nn\.Module"),
        ({"forward_func": len}, TypeError, r"The model must return a tensor"),
    ],
)
def test_wrong_arguments(vit, images, changes, error, message):
    arguments = {"model": vit, "batches": [(images, 3)], "importance": IMPORTANCE, "counts": [0, 9], **changes}
    if "forward_func" in changes:
        arguments["forward_func"] = lambda images: vit(images) and None
    with pytest.raises(error, match=message):
        head_ablation_curve(**arguments)


@pytest.mark.parametrize(
    ("targets", "message"),
    [(None, "targets must be one for every example"), (10, "target must be from 0 to 9"), ([1], "target must be one")],
)
def test_wrong_targets(vit, images, targets, message):
    with pytest.raises(ValueError, match=message):
        head_ablation_curve(vit, [(images, targets)], IMPORTANCE, counts=[0])


def test_names_and_areas(vit, images):
    found = head_ablation_curve(vit, [(images, 3)], IMPORTANCE, counts=[0])
    with pytest.raises(ValueError, match=r"name must be one of \['accuracy', 'logit', 'probability'\]"):
        found.mean("loss")
    with pytest.raises(ValueError, match=r"counts must be two or more for an area, but got \[0\]"):
        found.areas("logit")
