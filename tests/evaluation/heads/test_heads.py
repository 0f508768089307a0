"""Heads over a data set, from Python: against the library's functions, interrupted, and on bad input."""

import csv
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from families import TINY_IMAGE, make
from PIL import Image
from torch import Tensor, nn
from transformers import ViTConfig, ViTForImageClassification

from captum_gmar import GMARAttribution, evaluate_heads
from captum_gmar.ablation import (
    HeadAblationCurve,
    attention_entropy,
    gradient_of_mask,
    head_ablation_curve,
    head_importance,
    ranked_heads,
)
from captum_gmar.evaluation import evaluate_heads as heads_module
from captum_gmar.evaluation.measurement.head_scores import Ablation
from captum_gmar.evaluation.reports.head_report import HeadResults

IMAGES, CLASSES, LAYERS, HEADS = 10, 10, 3, 3
TABLES = ("heads.csv", "ablation.csv", "heads.md")
SCORES = ("gmar-l1", "gmar-l2", "mask-gradient", "entropy")

Data = list[tuple[Tensor, int]]

pytestmark = pytest.mark.usefixtures("blank_pictures")


@pytest.fixture(scope="module")
def data() -> Data:
    pixels = torch.randn(IMAGES, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    return [(image, number % CLASSES) for number, image in enumerate(pixels)]


@pytest.fixture(scope="module")
def vit() -> nn.Module:
    torch.manual_seed(0)
    return ViTForImageClassification(ViTConfig(**TINY_IMAGE, initializer_range=0.3)).eval()


@pytest.fixture(scope="module")
def ablate(vit: nn.Module, data: Data) -> Callable[..., HeadResults]:
    """Scores heads and silences them, against three random orders."""

    def ablate(**options: Any) -> HeadResults:
        return evaluate_heads(
            vit, data, **{"ablate": True, "random_orders": 3, "batch_size": 3, "target": "label", **options}
        )

    return ablate


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the results of ``whole``; tests leave it as it is."""
    return tmp_path_factory.mktemp("results") / "whole"


@pytest.fixture(scope="module")
def whole(ablate: Callable[..., HeadResults], folder: Path) -> HeadResults:
    return ablate(output=folder)


def scored_by(vit: nn.Module) -> dict[str, Callable[..., Tensor]]:
    return {
        "gmar-l1": GMARAttribution(vit).head_importance,
        "gmar-l2": GMARAttribution(vit, norm="l2").head_importance,
        "mask-gradient": partial(gradient_of_mask, vit),
        "entropy": partial(attention_entropy, vit),
    }


def batch(data: Data) -> tuple[Tensor, Tensor]:
    return torch.stack([image for image, _ in data]), torch.tensor([label for _, label in data])


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def content(folder: Path) -> dict[str, str]:
    """The tables, which must not change from run to run."""
    return {name: (folder / name).read_text() for name in TABLES if (folder / name).exists()}


def number_of(name: str) -> int:
    """Of an image, by its name."""
    return int(name.split()[-1])


def test_scores_are_those_of_the_library(vit: nn.Module, data: Data, tmp_path: Path) -> None:
    results = evaluate_heads(vit, data, SCORES, batch_size=3, output=tmp_path / "results")
    pixels, _ = batch(data)
    targets = vit(pixels).logits.argmax(1)
    written = rows(tmp_path / "results" / "heads.csv")
    assert [number_of(name) for name in results.images] == list(range(IMAGES))
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


def test_ablation_is_that_of_the_library(vit: nn.Module, data: Data, whole: HeadResults, folder: Path) -> None:
    """Heads are ranked by one half of the images and silenced on the other."""
    results = whole.ablation
    tested = [number_of(name) for name in results.images]
    ranking = [number for number in range(IMAGES) if number not in tested]
    assert len(ranking) == len(tested) == results.ranked_by == IMAGES // 2
    assert tested not in (list(range(5)), list(range(5, 10)), list(range(0, 10, 2)), list(range(1, 10, 2)))  # drawn
    halves = [batch([data[number] for number in numbers]) for numbers in (ranking, tested)]
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


def test_random_orders(vit: nn.Module, data: Data, whole: HeadResults) -> None:
    results = whole.ablation
    random = results.curves["random", "random"]
    assert len(random.orders) == 3
    assert len({tuple(order) for order in random.orders}) == 3
    assert all(sorted(order) == sorted(random.orders[0]) for order in random.orders)
    tested = batch([data[number_of(name)] for name in results.images])
    for index, order in enumerate(random.orders):
        places = torch.empty(LAYERS, HEADS)
        for place, (layer, head) in enumerate(order):
            places[layer, head] = place
        expected = head_ablation_curve(vit, [tested], places)
        torch.testing.assert_close(random.logit[index], expected.logit[0].double(), rtol=1e-5, atol=1e-5)


def test_random_orders_are_drawn_by_the_seed() -> None:
    importance = {"score": torch.rand(3, 4)}
    orders = [[order.heads for order in Ablation.by_scores(importance, 5, seed).orders] for seed in (0, 0, 1)]
    assert orders[0] == orders[1]
    assert orders[0][:2] == orders[2][:2] == [ranked_heads(importance["score"]), ranked_heads(-importance["score"])]
    assert orders[0][2:] != orders[2][2:]


def test_areas_in_the_report(whole: HeadResults) -> None:
    """Of five images tested twice, which are enough for intervals."""
    ablation = replace(whole.ablation, curves={key: twice(curve) for key, curve in whole.ablation.curves.items()})
    report = ablation.to_markdown()
    lines = report[report.index("### Logit") :].splitlines()
    areas = {
        key: (np.trapezoid if hasattr(np, "trapezoid") else np.trapz)(
            curve.logit.numpy(), curve.counts.numpy() / int(curve.counts[-1]), axis=1
        ).mean(1)
        for key, curve in ablation.curves.items()
    }
    random = areas.pop(("random", "random"))
    for (score, first), (area,) in areas.items():
        (line,) = [line for line in lines if line.startswith(f"| {score}, {first} first")]
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        assert cells[1].startswith(f"{area:.3f} [")
        assert cells[2].startswith(f"{area - random.mean():.3f} [")
        assert cells[3] == f"{(random >= area if first == 'least' else random <= area).sum()} of 3"
    assert f"{random.mean():.3f} [" in lines[-1]
    assert f"orders from {random.min():.3f} to {random.max():.3f}" in lines[-1]


def twice(curve: HeadAblationCurve) -> HeadAblationCurve:
    """The same predictions, of as many images more."""
    outcomes = {name: getattr(curve, name).repeat(1, 1, 2) for name in ("accuracy", "logit", "probability")}
    return replace(curve, **outcomes)


def test_few_images_show_no_intervals(whole: HeadResults) -> None:
    report = whole.ablation.to_markdown()
    assert "Fewer than 10 images show neither an interval nor which order is better." in report
    assert "[" not in report
    assert " of 3 |" not in report


def test_few_images_show_no_spread(vit: nn.Module, data: Data) -> None:
    results = evaluate_heads(vit, data[:4], ["gmar-l1"])
    report = results.to_markdown()
    assert "±" not in report
    assert "Mean of 4 images; fewer than 10 show no spread." in report
    _, (panel,) = results.visualize(use_pyplot=False)
    assert panel.get_title() == "gmar-l1\nMean of 4 images; fewer than 10 show no spread."
    assert not any("±" in text.get_text() for text in panel.texts)


def test_results_in_a_notebook(whole: HeadResults) -> None:
    results = whole
    report = results._repr_markdown_()
    assert report == str(results) == results.to_markdown()
    for part in (
        *("gmar-l1, share of its layer ± standard deviation over the images", "mask-gradient, nats", "10 images"),
        *("explained: the class of the label", "on 5 others", "Do the scores agree?", "made by `captum_gmar.evaluate"),
    ):
        assert part in report
    figure, axes = results.visualize(use_pyplot=False)
    assert [panel.get_title() for panel in axes] == ["gmar-l1", "mask-gradient"]
    assert figure.get_suptitle().replace("\n", " ") == "ViTForImageClassification, list: heads, 10 images"
    figure, _ = results.ablation.visualize(use_pyplot=False)
    assert figure.get_suptitle().replace("\n", " ") == "ViTForImageClassification, list: heads silenced"
    figure, axes = results.ablation.visualize(title="without heads", use_pyplot=False)
    assert [panel.get_title().split(":")[0] for panel in axes] == [
        *("accuracy", "probability of the target", "logit of the target")
    ]
    assert figure.get_suptitle() == "without heads"
    assert len(axes[0].lines) == 5
    assert len(results.ablation.records()) == (5) * 3 * 10


def test_one_image_has_no_spread(vit: nn.Module, data: Data) -> None:
    results = evaluate_heads(vit, data[:1], ["gmar-l2"], target=3)
    expected = GMARAttribution(vit, norm="l2").head_importance(data[0][0][None], target=3)[0]
    torch.testing.assert_close(results.statistics["gmar-l2"].mean, expected.double())
    assert results.explained.endswith("(class 3)")
    assert "±" not in results.to_markdown()


def test_a_model_that_says_nothing_of_its_classes(data: Data) -> None:
    model, forward = make("timm-like, token")
    results = evaluate_heads(model, data[:2], ["mask-gradient"], target=3)
    assert results.units == {"mask-gradient": "nats"}
    assert results.explained == "class 3"
    expected = gradient_of_mask(model, batch(data[:2])[0], 3, forward_func=forward)
    torch.testing.assert_close(results.statistics["mask-gradient"].importance, expected)


def test_scores_of_the_user(vit: nn.Module, data: Data) -> None:
    def first_heads(inputs: Tensor, target: Tensor) -> Tensor:
        return torch.arange(9.0).view(1, LAYERS, HEADS).expand(len(inputs), LAYERS, HEADS)

    results = evaluate_heads(vit, data, {"place": first_heads}, ablate=True, random_orders=1)
    assert results.statistics["place"].mean.tolist() == torch.arange(9.0).view(3, 3).tolist()
    assert results.ablation.curves["place", "least"].orders == [
        [(layer, head) for layer in range(3) for head in range(3)]
    ]


def stopped_after(count: int, name: str, patch: pytest.MonkeyPatch) -> list[list[int]]:
    """Stops the work after some batches; the numbers of the examples that came to it."""
    numbers: list[list[int]] = []
    home, attribute = {"scoring": (heads_module, "score_heads"), "silencing": (Ablation, "measure")}[name]
    original = getattr(home, attribute)

    def work(*arguments: Any) -> Any:
        if len(numbers) == count:
            raise KeyboardInterrupt
        numbers.append(list(arguments[-2].numbers))
        return original(*arguments)

    patch.setattr(home, attribute, work)
    return numbers


@pytest.mark.parametrize("name", ["scoring", "silencing"])
def test_interrupted_and_resumed_is_unbroken(
    ablate: Callable[..., HeadResults],
    whole: HeadResults,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    name: str,
) -> None:
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
    assert len(numbers) + len(first[0]) == (IMAGES if name == "scoring" else IMAGES // 2)
    assert again["scoring"] == [] or name == "scoring"
    assert content(broken) == content(folder)


def test_what_is_finished_is_not_computed_again(
    ablate: Callable[..., HeadResults],
    whole: HeadResults,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """Also where heads are silenced later, and against other orders, and then against the first again."""
    ablate(ablate=False, output=tmp_path)
    stopped_after(0, "scoring", monkeypatch)
    ablate(output=tmp_path, random_orders=1)
    assert content(tmp_path) != content(folder)
    ablate(output=tmp_path)
    stopped_after(0, "silencing", monkeypatch)
    ablate(output=tmp_path, random_orders=1)
    ablate(output=tmp_path)
    assert content(tmp_path) == content(folder)


def test_an_image_that_two_runs_have_finished_counts_once(
    ablate: Callable[..., HeadResults], whole: HeadResults, folder: Path, tmp_path: Path
) -> None:
    twice = tmp_path / "twice"
    shutil.copytree(folder, twice)
    for journal in [*twice.glob("**/process-0.jsonl")]:
        journal.with_name("process-1.jsonl").write_bytes(journal.read_bytes())
    again = ablate(output=twice)
    assert content(twice) == content(folder)
    assert again.images == whole.images
    assert len(again.ablation.images) == IMAGES // 2


def test_more_images_can_follow(
    ablate: Callable[..., HeadResults], whole: HeadResults, folder: Path, tmp_path: Path
) -> None:
    """The scores so far are kept; heads are ranked anew."""
    assert len(ablate(output=tmp_path, limit=6).ablation.images) == 3
    (journal,) = (tmp_path / "journal").glob("*.jsonl")
    first = journal.read_bytes()
    ablate(output=tmp_path)
    assert journal.read_bytes().startswith(first)
    assert content(tmp_path) == content(folder)


def test_an_image_that_changed_is_scored_anew(vit: nn.Module, tmp_path: Path) -> None:
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

    def __call__(self, images: Image.Image, **options: Any) -> dict[str, Tensor]:
        return {"pixel_values": torch.from_numpy(np.asarray(images) / np.float32(255)).movedim(-1, 0)[None]}

    def to_dict(self) -> dict[str, Any]:
        return {}


def test_an_image_that_cannot_be_scored_is_left_out(vit: nn.Module, data: Data, tmp_path: Path) -> None:
    some = [*data[:2], (torch.full((3, 32, 32), torch.nan), 0), *data[2:4]]
    with pytest.warns(UserWarning, match="left out 1 image, see `skipped`: example 2: gmar-l1: "):
        results = evaluate_heads(vit, some, ["gmar-l1"], output=tmp_path)
    assert [number_of(name) for name in results.images] == [0, 1, 3, 4]
    assert [skip.name for skip in results.skipped] == ["example 2"]
    assert rows(tmp_path / "skipped.csv")[0]["name"] == "example 2"
    assert "## Left out\n\n- example 2: gmar-l1: " in results.to_markdown()


def test_settings_are_kept(vit: nn.Module, data: Data, tmp_path: Path) -> None:
    evaluate_heads(vit, data, ["entropy"], output=tmp_path)
    settings = json.loads((tmp_path / "settings.json").read_text())["settings"]
    assert (settings["scores"], settings["target"], settings["seed"]) == (["entropy"], "predicted", 0)
    with pytest.raises(ValueError, match="holds results of other settings: scores is"):
        evaluate_heads(vit, data, ["gmar-l1"], output=tmp_path)


def test_units_of_a_model_of_several_classes_at_once(make_vit: Callable[..., nn.Module], data: Data) -> None:
    results = evaluate_heads(make_vit(problem_type="multi_label_classification"), data, ["mask-gradient"])
    assert results.units == {"mask-gradient": "of the logit"}


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"scores": ["gmar-l1", "taylor"]}, ValueError, r"scores must be of gmar-l1, .*\. Got 'taylor' instead"),
        ({"scores": []}, ValueError, r"scores must hold at least one\. Got none instead"),
        ({"scores": {"random": len}}, ValueError, r"scores must not be called 'random'"),
        ({"scores": {"mine": 3}}, TypeError, r"scores must be callable.*Got int for 'mine' instead"),
        ({"target": "dog"}, ValueError, r"target must be predicted, label, an index or a label\. Got 'dog'"),
        ({"target": 10}, ValueError, r"target must be from 0 to 9"),
        ({"limit": 0}, ValueError, r"limit must be an integer, one or more\. Got 0 instead"),
        ({"seed": -1}, ValueError, r"seed must be an integer, zero or more\. Got -1 instead"),
        ({"random_orders": 1.0}, ValueError, r"random_orders must be an integer, one or more\. Got 1\.0 instead"),
        ({"batch_size": True}, ValueError, r"batch_size must be an integer, one or more\. Got True instead"),
        ({"ablate": True, "limit": 1}, ValueError, r"ablate must go with two images or more"),
        ({"data": []}, ValueError, r"data must hold at least one image"),
        ({"data": 3}, TypeError, r"data must be a path, a data set or an iterable"),
    ],
)
def test_bad_arguments(
    vit: nn.Module, data: Data, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        evaluate_heads(**{"model": vit, "data": data, **options})


def test_models_that_cannot_be_scored(make_vit: Callable[..., nn.Module], data: Data) -> None:
    with pytest.raises(ValueError, match="ablate must go with a model of several classes"):
        evaluate_heads(make_vit(num_labels=1), data, ablate=True)
    broken = make_vit()
    with torch.no_grad():
        broken.classifier.weight.fill_(torch.nan)
    with pytest.raises(RuntimeError, match="gmar-l1: "):
        evaluate_heads(broken, data)
