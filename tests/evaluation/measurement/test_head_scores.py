"""Scores and silenced heads against the library's functions."""

from functools import partial

import pytest
import torch
from families import make

from captum_gmar import GMARAttribution, evaluate_heads
from captum_gmar.ablation import attention_entropy, gradient_of_mask, head_ablation_curve, head_importance, ranked_heads
from captum_gmar.evaluation.measurement.head_scores import Ablation
from evaluation.small_data import LABELLED, batch, number_of, rows

LAYERS, HEADS = 3, 3
SCORES = ("gmar-l1", "gmar-l2", "mask-gradient", "entropy")

pytestmark = pytest.mark.usefixtures("blank_pictures")


def scored_by(vit):
    return {
        "gmar-l1": GMARAttribution(vit).head_importance,
        "gmar-l2": GMARAttribution(vit, norm="l2").head_importance,
        "mask-gradient": partial(gradient_of_mask, vit),
        "entropy": partial(attention_entropy, vit),
    }


def test_scores_are_those_of_the_library(vit, labelled, tmp_path):
    results = evaluate_heads(vit, labelled, SCORES, batch_size=3, output=tmp_path / "results")
    pixels, _ = batch(labelled)
    targets = vit(pixels).logits.argmax(1)
    written = rows(tmp_path / "results" / "heads.csv")
    assert [number_of(name) for name in results.images] == list(range(LABELLED))
    for name, score in scored_by(vit).items():
        expected = head_importance(score, [(pixels, targets)])
        statistics = results.statistics[name]
        torch.testing.assert_close(statistics.importance, expected.importance, rtol=1e-4, atol=1e-6)
        assert torch.equal(statistics.targets, targets)
        records = [row for row in results.records() if row["score"] == name]
        cells = [row for row in written if row["score"] == name]
        for record, cell, row in zip(records, cells, expected.records(), strict=True):
            assert {key: record[key] for key in ("layer", "head", "class", "examples")} == {
                key: row[key] for key in ("layer", "head", "class", "examples")
            }
            assert record["mean"] == pytest.approx(row["mean"], rel=1e-4, abs=1e-6)
            assert float(cell["mean"]) == pytest.approx(record["mean"], rel=1e-7)
            assert (cell["layer"], cell["head"], cell["examples"]) == tuple(
                str(record[key]) for key in ("layer", "head", "examples")
            )
            assert cell["class"] == ("" if record["class"] is None else str(record["class"]))
            if record["examples"] == 1:
                assert cell["std"] == ""
            else:
                assert float(cell["std"]) == pytest.approx(row["std"], rel=1e-3, abs=1e-6)


def test_ablation_is_that_of_the_library(vit, labelled, whole, folder):
    """Heads are ranked by one half of the images and silenced on the other."""
    results = whole.ablation
    tested = [number_of(name) for name in results.images]
    ranking = [number for number in range(LABELLED) if number not in tested]
    assert len(ranking) == len(tested) == results.ranked_by == LABELLED // 2
    assert tested not in (list(range(5)), list(range(5, 10)), list(range(0, 10, 2)), list(range(1, 10, 2)))  # drawn
    halves = [batch([labelled[number] for number in numbers]) for numbers in (ranking, tested)]
    scores = scored_by(vit)
    written = rows(folder / "ablation.csv")
    for name in ("gmar-l1", "mask-gradient"):
        importance = scores[name](halves[0][0], target=halves[0][1]).mean(0)
        for first in ("least", "most"):
            expected = head_ablation_curve(vit, [halves[1]], importance, order=first)
            curve = results.curves[name, first]
            assert curve.orders == expected.orders
            for outcome in ("accuracy", "logit", "probability"):
                torch.testing.assert_close(
                    getattr(curve, outcome), getattr(expected, outcome).double(), rtol=1e-5, atol=1e-5
                )
            cells = [row for row in written if (row["score"], row["first"]) == (name, first)]
            for cell, record in zip(cells, expected.records(), strict=True):
                assert (cell["silent"], cell["name"], cell["orders"]) == (str(record["silent"]), record["name"], "1")
                assert float(cell["mean"]) == pytest.approx(record["mean"], abs=1e-5)


def test_random_orders(vit, labelled, whole):
    results = whole.ablation
    random = results.curves["random", "random"]
    assert len(random.orders) == 3
    assert len({tuple(order) for order in random.orders}) == 3
    assert all(sorted(order) == sorted(random.orders[0]) for order in random.orders)
    tested = batch([labelled[number_of(name)] for name in results.images])
    for index, order in enumerate(random.orders):
        places = torch.empty(LAYERS, HEADS)
        for place, (layer, head) in enumerate(order):
            places[layer, head] = place
        expected = head_ablation_curve(vit, [tested], places)
        torch.testing.assert_close(random.logit[index], expected.logit[0].double(), rtol=1e-5, atol=1e-5)


def test_random_orders_are_drawn_by_the_seed():
    importance = {"score": torch.rand(3, 4)}
    orders = [[order.heads for order in Ablation.by_scores(importance, 5, seed).orders] for seed in (0, 0, 1)]
    assert orders[0] == orders[1]
    assert orders[0][:2] == orders[2][:2] == [ranked_heads(importance["score"]), ranked_heads(-importance["score"])]
    assert orders[0][2:] != orders[2][2:]


def test_a_model_that_says_nothing_of_its_classes(labelled):
    model, forward = make("timm-like, token")
    results = evaluate_heads(model, labelled[:2], ["mask-gradient"], target=3)
    assert results.units == {"mask-gradient": "nats"}
    assert results.explained == "class 3"
    expected = gradient_of_mask(model, batch(labelled[:2])[0], 3, forward_func=forward)
    torch.testing.assert_close(results.statistics["mask-gradient"].importance, expected)


def test_scores_of_the_user(vit, labelled):
    def first_heads(inputs, target):
        return torch.arange(9.0).view(1, LAYERS, HEADS).expand(len(inputs), LAYERS, HEADS)

    results = evaluate_heads(vit, labelled, {"place": first_heads}, ablate=True, random_orders=1)
    assert results.statistics["place"].mean.tolist() == torch.arange(9.0).view(3, 3).tolist()
    assert results.ablation.curves["place", "least"].orders == [
        [(layer, head) for layer in range(3) for head in range(3)]
    ]


def test_units_of_a_model_of_several_labels(make_vit, labelled):
    results = evaluate_heads(make_vit(problem_type="multi_label_classification"), labelled, ["mask-gradient"])
    assert results.units == {"mask-gradient": "of the logit"}
