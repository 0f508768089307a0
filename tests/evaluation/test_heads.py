"""Heads over a data set, from Python: interrupted, resumed, and on bad input."""

import json
import shutil
from functools import partial
from itertools import chain

import numpy as np
import pytest
import torch
from cli.commandline import rows
from families import make
from PIL import Image

from captum_gmar import GMARAttribution, evaluate_heads
from captum_gmar.ablation import attention_entropy, gradient_of_mask, head_ablation_curve, head_importance, ranked_heads
from captum_gmar.evaluation import heads as heads_module
from captum_gmar.evaluation.heads import silencing_orders
from evaluation.small_data import LABELLED, batch, content, number_of

LAYERS, HEADS = 3, 3
SCORES = ("gmar-l1", "gmar-l2", "mask-gradient", "entropy")


def scored_by(vit):
    return {
        "gmar-l1": GMARAttribution(vit).head_importance,
        "gmar-l2": GMARAttribution(vit, norm="l2").head_importance,
        "mask-gradient": partial(gradient_of_mask, vit),
        "entropy": partial(attention_entropy, vit),
    }


pytestmark = pytest.mark.usefixtures("blank_pictures")


def stopped_after(count, name, patch):
    """Stops the work after some batches; the numbers of the examples that came to it."""
    numbers = []
    attribute = {"scoring": "score_heads", "silencing": "silence_heads"}[name]
    original = getattr(heads_module, attribute)

    def work(*arguments):
        if len(numbers) == count:
            raise KeyboardInterrupt
        numbers.append(list(arguments[-2].numbers))
        return original(*arguments)

    patch.setattr(heads_module, attribute, work)
    return numbers


@pytest.mark.parametrize("name", ["scoring", "silencing"])
def test_interrupted_and_resumed_is_unbroken(ablate, whole, folder, monkeypatch, tmp_path, name):
    broken = tmp_path / "broken"
    with monkeypatch.context() as patch:
        first = stopped_after(1, name, patch)
        with (
            pytest.warns(UserWarning, match=r"interrupted: \d of \d+ images kept; the same call goes on"),
            pytest.raises(KeyboardInterrupt),
        ):
            ablate(output=broken)
    assert not (broken / "heads.md").exists()
    with monkeypatch.context() as patch:
        again = {other: stopped_after(99, other, patch) for other in ("scoring", "silencing")}
        ablate(output=broken)
    numbers = [number for batch in again[name] for number in batch]
    assert not {*numbers} & {*first[0]}
    assert len(numbers) + len(first[0]) == (LABELLED if name == "scoring" else LABELLED // 2)
    assert again["scoring"] == [] or name == "scoring"
    assert content(broken) == content(folder)


def test_what_is_finished_is_not_computed_again(ablate, whole, folder, monkeypatch, tmp_path):
    """Silence heads later, against other orders, and then against the first again."""
    ablate(ablate=False, output=tmp_path)
    stopped_after(0, "scoring", monkeypatch)
    ablate(output=tmp_path, random_orders=1)
    assert content(tmp_path) != content(folder)
    ablate(output=tmp_path)
    stopped_after(0, "silencing", monkeypatch)
    ablate(output=tmp_path, random_orders=1)
    ablate(output=tmp_path)
    assert content(tmp_path) == content(folder)


def test_an_image_that_two_runs_have_finished_counts_once(ablate, whole, folder, tmp_path):
    twice = tmp_path / "twice"
    shutil.copytree(folder, twice)
    for journal in [*twice.glob("**/process-0.jsonl")]:
        journal.with_name("process-1.jsonl").write_bytes(journal.read_bytes())
    again = ablate(output=twice)
    assert content(twice) == content(folder)
    assert again.images == whole.images
    assert len(again.ablation.images) == LABELLED // 2


def test_more_images_can_follow(ablate, whole, folder, tmp_path):
    """The scores so far are kept; heads are ranked anew."""
    assert len(ablate(output=tmp_path, limit=6).ablation.images) == 3
    (journal,) = (tmp_path / "journal").glob("*.jsonl")
    first = journal.read_bytes()
    ablate(output=tmp_path)
    assert journal.read_bytes().startswith(first)
    assert content(tmp_path) == content(folder)


def test_an_image_that_changed_is_scored_anew(vit, tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    for number in range(2):
        Image.fromarray(pixels[number]).save(folder / f"{number}.png")
    options = {"processor": Processor(), "output": tmp_path / "results"}
    before = evaluate_heads(vit, folder, ["entropy"], **options).statistics["entropy"].importance
    Image.fromarray(pixels[2]).save(folder / "1.png")
    with pytest.warns(UserWarning, match=r"1 image is not what was measured .*: 1\.png"):
        after = evaluate_heads(vit, folder, ["entropy"], **options).statistics["entropy"].importance
    assert torch.equal(before[0], after[0])
    expected = attention_entropy(vit, Processor()(Image.fromarray(pixels[2]))["pixel_values"])
    torch.testing.assert_close(after[1], expected[0])


class Processor:
    """An image processor that scales and does no more."""

    def __call__(self, images, **options):
        return {"pixel_values": torch.from_numpy(np.asarray(images) / np.float32(255)).movedim(-1, 0)[None]}

    def to_dict(self):
        return {}


def test_an_image_that_cannot_be_scored_is_left_out(vit, labelled, tmp_path):
    some = [*labelled[:2], (torch.full((3, 32, 32), torch.nan), 0), *labelled[2:4]]
    with pytest.warns(UserWarning, match="left out 1 image, see `skipped`: example 2: gmar-l1: "):
        results = evaluate_heads(vit, some, ["gmar-l1"], output=tmp_path)
    assert [number_of(name) for name in results.images] == [0, 1, 3, 4]
    assert [skip.name for skip in results.skipped] == ["example 2"]
    assert rows(tmp_path / "skipped.csv")[0]["name"] == "example 2"
    assert "## Left out\n\n- example 2: gmar-l1: " in results.to_markdown()


def test_settings_are_kept(vit, labelled, tmp_path):
    evaluate_heads(vit, labelled, ["entropy"], output=tmp_path)
    settings = json.loads((tmp_path / "settings.json").read_text())["settings"]
    assert (settings["scores"], settings["target"], settings["seed"]) == (["entropy"], "predicted", 0)
    with pytest.raises(ValueError, match="holds results of other settings: scores is"):
        evaluate_heads(vit, labelled, ["gmar-l1"], output=tmp_path)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"scores": ["gmar-l1", "taylor"]}, ValueError, r"scores must be of gmar-l1, .*\. Got 'taylor' instead"),
        ({"scores": {"random": len}}, ValueError, r"scores must not be called 'random'"),
        ({"scores": {"mine": 3}}, TypeError, r"scores must be callable.*Got int for 'mine' instead"),
        ({"target": "dog"}, ValueError, r"target must be predicted, label, an index or a label\. Got 'dog'"),
        ({"target": 10}, ValueError, r"target must be from 0 to 9"),
        ({"ablate": True, "limit": 1}, ValueError, r"ablate requires two images or more"),
        ({"data": []}, ValueError, r"data must hold at least one image"),
        ({"data": 3}, TypeError, r"data must be a path, a data set or an iterable"),
    ],
)
def test_bad_arguments(vit, labelled, options, error, message):
    with pytest.raises(error, match=message):
        evaluate_heads(**{"model": vit, "data": labelled, **options})


def test_models_that_cannot_be_scored(make_vit, labelled):
    with pytest.raises(ValueError, match="ablate requires a model of several classes"):
        evaluate_heads(make_vit(num_labels=1), labelled, ablate=True)
    broken = make_vit()
    with torch.no_grad():
        broken.classifier.weight.fill_(torch.nan)
    with pytest.raises(RuntimeError, match="gmar-l1: "):
        evaluate_heads(broken, labelled)


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
    orders = [list(chain(*silencing_orders(importance, 5, seed).values())) for seed in (0, 0, 1)]
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
