"""Statistics over a data set against numpy."""

import math
from functools import partial

import pytest
import torch
from torch.testing import assert_close

from captum_gmar import GMARAttribution
from captum_gmar.ablation import HeadStatistics, gradient_of_mask, head_importance

SCORES = torch.rand(23, 3, 2, generator=torch.Generator().manual_seed(0)) + 5
TARGETS = torch.randint(0, 4, (23,), generator=torch.Generator().manual_seed(1)) * 2
TARGETS[7] = 9  # the only one of its class


def stored(inputs, target):
    """Return scores of examples whose inputs are their indices."""
    assert_close(TARGETS[inputs[:, 0, 0, 0].long()], torch.as_tensor(target))
    return SCORES[inputs[:, 0, 0, 0].long()]


def batches(sizes):
    indices = torch.arange(23.0).view(-1, 1, 1, 1)
    return zip(indices.split(sizes), TARGETS.split(sizes), strict=True)


@pytest.mark.parametrize("sizes", [[23], [1] * 23, [7, 1, 15]])
def test_any_batches_give_the_statistics_of_all_examples(sizes):
    found, scores, targets = head_importance(stored, batches(sizes)), SCORES.double().numpy(), TARGETS.numpy()
    assert found.examples == 23
    assert_close(found.mean.numpy(), scores.mean(0))
    assert_close(found.std.numpy(), scores.std(0, ddof=1))
    assert found.classes.tolist() == sorted(set(targets.tolist()))
    for index, number in enumerate(found.classes.tolist()):
        members = scores[targets == number]
        assert found.class_examples[index] == len(members)
        assert_close(found.class_mean[index].numpy(), members.mean(0))
        if number != 9:
            assert_close(found.class_std[index].numpy(), members.std(0, ddof=1))
    assert found.class_std[-1].isnan().all()


def test_importance_of_every_example():
    found = head_importance(stored, batches([20, 3]))
    assert torch.equal(found.importance, SCORES)
    assert torch.equal(found.targets, TARGETS)
    again = HeadStatistics.from_examples(found.importance, found.targets)
    for name, value in vars(again).items():
        assert_close(value, getattr(found, name), rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("score", ["GMAR", "mask"])
def test_the_mean_over_a_data_set_is_that_of_singles(vit, images, score):
    score = GMARAttribution(vit).head_importance if score == "GMAR" else partial(gradient_of_mask, vit)
    found = head_importance(score, [(images[:3], [3, 0, 3]), [images[3:], torch.tensor([3])]])
    singles = torch.cat([score(images[i : i + 1], target=t) for i, t in enumerate([3, 0, 3, 3])]).double()
    assert_close(found.mean, singles.mean(0), rtol=1e-5, atol=1e-7)
    assert_close(found.class_mean[1], singles[[0, 2, 3]].mean(0), rtol=1e-5, atol=1e-7)


def test_without_targets_and_one_for_all():
    found = HeadStatistics.from_examples(SCORES.numpy())
    assert found.classes.tolist() == []
    assert found.class_mean.shape == (0, 3, 2)
    assert len(found.records()) == 6
    assert found.targets is None
    found = HeadStatistics.from_examples(SCORES, 4)
    assert found.classes.tolist() == [4]
    assert_close(found.class_mean[0], found.mean, rtol=0, atol=0)


def test_records():
    found = HeadStatistics.from_examples(SCORES, TARGETS)
    records = found.records()
    assert len(records) == 6 * (1 + len(found.classes))
    expected = {"layer": 1, "head": 0, "class": None, "mean": float(found.mean[1, 0]), "std": float(found.std[1, 0])}
    assert records[2] == {**expected, "examples": 23}
    alone = records[-1]
    assert (alone["layer"], alone["head"], alone["class"], alone["examples"]) == (2, 1, 9, 1)
    assert alone["mean"] == float(SCORES[7, 2, 1])
    assert math.isnan(alone["std"])


def test_least_and_most():
    importance = torch.tensor([[0.3, 0.2, 0.5], [0.9, 0.1, 0.0]])
    found = HeadStatistics.from_examples(torch.stack([importance, importance.flip(1)]), [0, 5])
    assert found.least(2, target=0) == {1: [1, 2]}
    assert found.least(2, target=5) == {1: [0, 1]}
    assert found.least(2, target=0, within_layers=True) == {0: [1], 1: [2]}
    assert found.most(3, target=0) == {0: [0, 2], 1: [0]}
    assert found.least(6) == found.most(6) == {0: [0, 1, 2], 1: [0, 1, 2]}
    assert found.least(1) == {1: [1]}


class TestWrongArguments:
    def test_score(self, images):
        with pytest.raises(TypeError, match=r"score must be callable, as head_importance of a method, but got Tensor"):
            head_importance(SCORES, batches([23]))
        for wrong, found in ((None, "NoneType"), (torch.tensor(1.0), r"\(\)"), (SCORES[:3], r"\(3, 3, 2\)")):
            with pytest.raises(TypeError, match=rf"score must return a tensor \(.*\) for 4, but got {found}"):
                head_importance(lambda inputs, target, wrong=wrong: wrong, [(images, 3)])

    @pytest.mark.parametrize(
        "wrong", [SCORES[:, 0], SCORES[:, :0], SCORES * torch.nan, SCORES / 0, SCORES[:0], torch.zeros(1, 2, 3, 4)]
    )
    def test_importance(self, wrong):
        with pytest.raises(ValueError, match=r"score must return finite importance \(examples, layers, heads\)"):
            HeadStatistics.from_examples(wrong)

    def test_kind_of_importance(self):
        with pytest.raises(TypeError, match=r"importance must be a tensor .* but got list"):
            HeadStatistics.from_examples([[[1.0]]])

    def test_models_of_different_shape(self, images):
        scores = iter([SCORES[:4], SCORES[:4, :2]])
        with pytest.raises(ValueError, match=r"importance of \(3, 2\) \(layers, heads\), as before, but got \(2, 2\)"):
            head_importance(lambda inputs, target: next(scores), [(images, 3), (images, 3)])

    @pytest.mark.parametrize("targets", [(3, None), (None, 3)])
    def test_targets_in_some_batches(self, images, targets):
        with pytest.raises(ValueError, match="batches must all have targets, or none, but got both"):
            head_importance(lambda inputs, target: SCORES[:4], [(images, target) for target in targets])

    def test_targets(self):
        with pytest.raises(ValueError, match=r"target must be one for all examples, or a list or tensor of 23"):
            HeadStatistics.from_examples(SCORES, [1, 2])
        with pytest.raises(TypeError, match="target must be a class index, or one per example"):
            HeadStatistics.from_examples(SCORES, "tabby")

    @pytest.mark.parametrize("batch", [{"pixel_values": 1, "labels": 2}, torch.zeros(2, 3), (1, 2), (SCORES,)])
    def test_batches(self, batch):
        with pytest.raises(TypeError, match=r"batches must be pairs of an inputs tensor and targets, but got"):
            head_importance(stored, [batch])

    def test_no_batches(self):
        with pytest.raises(ValueError, match=r"batches must hold at least one, but got none"):
            head_importance(stored, [])

    def test_counts_and_classes(self):
        found = HeadStatistics.from_examples(SCORES, TARGETS)
        for count in (0, 1.0, True):
            with pytest.raises(ValueError, match="count must be an integer, one or more"):
                found.least(count)
        with pytest.raises(ValueError, match=r"count must be at most the number of heads, 6, but got 7"):
            found.most(7)
        with pytest.raises(ValueError, match=r"target must be one of the classes \[0, .*9\], but got 3"):
            found.least(1, target=3)
