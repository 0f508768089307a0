"""Heads over a data set, from Python: interrupted, resumed, and on bad input."""

import shutil
from functools import partial

import pytest
import torch
from cli.commandline import rows
from families import make

from captum_gmar import GMARAttribution, evaluate_heads
from captum_gmar.ablation import attention_entropy, gradient_of_mask, head_importance
from captum_gmar.evaluation import heads as heads_module
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


def stopped_after(count, patch):
    """Stops the work after some batches; the numbers of the examples that came to it."""
    numbers = []
    original = heads_module.score_heads

    def work(*arguments):
        if len(numbers) == count:
            raise KeyboardInterrupt
        numbers.append(list(arguments[-2].numbers))
        return original(*arguments)

    patch.setattr(heads_module, "score_heads", work)
    return numbers


def test_more_images_can_follow_and_what_is_finished_is_not_computed_again(score, whole, folder, monkeypatch, tmp_path):
    """Report fewer images, then all, and both again without work."""
    assert len(score(output=tmp_path, limit=6).images) == 6
    (journal,) = (tmp_path / "journal").glob("*.jsonl")
    first = journal.read_bytes()
    score(output=tmp_path)
    assert journal.read_bytes().startswith(first)
    assert content(tmp_path) == content(folder)
    stopped_after(0, monkeypatch)
    assert len(score(output=tmp_path, limit=6).images) == 6
    assert content(tmp_path) != content(folder)
    score(output=tmp_path)
    assert content(tmp_path) == content(folder)


def test_an_image_that_two_runs_have_finished_counts_once(score, whole, folder, tmp_path):
    twice = tmp_path / "twice"
    shutil.copytree(folder, twice)
    for journal in [*twice.glob("**/process-0.jsonl")]:
        journal.with_name("process-1.jsonl").write_bytes(journal.read_bytes())
    again = score(output=twice)
    assert content(twice) == content(folder)
    assert again.images == whole.images
    assert again.statistics["gmar-l1"].examples == LABELLED


def test_an_image_that_cannot_be_scored_is_left_out(vit, labelled, tmp_path):
    some = [*labelled[:2], (torch.full((3, 32, 32), torch.nan), 0), *labelled[2:4]]
    with pytest.warns(UserWarning, match="left out 1 image, see `skipped`: example 2: gmar-l1: "):
        results = evaluate_heads(vit, some, ["gmar-l1"], output=tmp_path)
    assert [number_of(name) for name in results.images] == [0, 1, 3, 4]
    assert [skip.name for skip in results.skipped] == ["example 2"]
    assert rows(tmp_path / "skipped.csv")[0]["name"] == "example 2"
    assert "## Left out\n\n- example 2: gmar-l1: " in results.to_markdown()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"scores": ["gmar-l1", "taylor"]}, ValueError, r"scores must be of gmar-l1, .*, but got 'taylor'"),
        ({"scores": {"mine": 3}}, TypeError, r"scores must be callable.*but got int for 'mine'"),
        ({"target": "dog"}, ValueError, r"target must be predicted, label, an index or a label, but got 'dog'"),
        ({"target": 10}, ValueError, r"target must be from 0 to 9"),
        ({"data": []}, ValueError, r"data must hold at least one image"),
        ({"data": 3}, TypeError, r"data must be a path, a data set or an iterable"),
    ],
)
def test_bad_arguments(vit, labelled, options, error, message):
    with pytest.raises(error, match=message):
        evaluate_heads(**{"model": vit, "data": labelled, **options})


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

    results = evaluate_heads(vit, labelled, {"place": first_heads})
    assert results.statistics["place"].mean.tolist() == torch.arange(9.0).view(3, 3).tolist()
    assert results.units == {"place": "score"}


@pytest.mark.parametrize("config", [{"problem_type": "multi_label_classification"}, {"num_labels": 1}])
def test_units_of_a_model_of_one_class_or_several_labels(make_vit, labelled, config):
    results = evaluate_heads(make_vit(**config), labelled, ["mask-gradient"])
    assert results.units == {"mask-gradient": "of the logit"}


def test_few_images_show_no_spread(vit, labelled):
    results = evaluate_heads(vit, labelled[:4], ["gmar-l1"])
    report = results.to_markdown()
    assert "±" not in report
    assert "Mean of 4 images; fewer than 10 show no spread." in report
    _, (panel,) = results.visualize(use_pyplot=False)
    assert panel.get_title() == "gmar-l1\nMean of 4 images; fewer than 10 show no spread."
    assert not any("±" in text.get_text() for text in panel.texts)


def test_results_in_a_notebook(whole):
    results = whole
    report = results._repr_markdown_()
    assert report == str(results) == results.to_markdown()
    for part in (
        *("gmar-l1, share of its layer ± standard deviation over the images", "mask-gradient, nats", "10 images"),
        *("explained: the class of the label", "Do the scores agree?", "made by `captum_gmar.evaluate"),
    ):
        assert part in report
    figure, axes = results.visualize(use_pyplot=False)
    assert [panel.get_title() for panel in axes] == ["gmar-l1", "mask-gradient"]
    assert figure.get_suptitle().replace("\n", " ") == "ViTForImageClassification, list: heads, 10 images"
    figure, _ = results.visualize(title="all heads", use_pyplot=False)
    assert figure.get_suptitle() == "all heads"
