"""``captum_gmar.evaluate``, called from Python on data in every form."""

import csv
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import (
    SwinConfig,
    SwinForImageClassification,
    VideoMAEConfig,
    VideoMAEForVideoClassification,
    ViTForImageClassification,
    ViTImageProcessor,
)

from captum_gmar import AttentionRollout, GradientRollout, evaluate, methods
from captum_gmar.attr.catalogue import EVALUATED
from captum_gmar.evaluation.reports.evaluation_result import Evaluation
from captum_gmar.metrics import Mean, deletion, relevance_mass_accuracy
from captum_gmar.metrics.controls import CONTROLS

IMAGES = 3
FEW: dict[str, Any] = {
    "methods": ["rollout"],
    "metrics": ["deletion", "relevance-mass"],
    "removals": ["mean"],
    "steps": 4,
}
BOX = [8, 0, 24, 16]

Data = Callable[[], Any]


@pytest.mark.parametrize("of_videos", [False, True], ids=["windows", "videos"])
def test_usual_methods_are_those_that_explain_the_model(of_videos: bool) -> None:
    if of_videos:
        tiny = {"hidden_size": 12, "num_attention_heads": 2, "num_hidden_layers": 1, "intermediate_size": 12}
        model: Any = VideoMAEForVideoClassification(VideoMAEConfig(**tiny, image_size=16, patch_size=8, num_frames=2))
    else:
        config = SwinConfig(image_size=32, embed_dim=8, depths=[1, 1], num_heads=[1, 2], window_size=4)
        model = SwinForImageClassification(config)
    inputs = torch.rand(2, 3, 16, 16) if of_videos else pixels(0)
    evaluation = evaluate(model.eval(), [(inputs, 1)], metrics=["deletion"], removals=["mean"], steps=2)
    measured = [row["method"] for row in evaluation.means()]
    assert measured == [*(name for name in EVALUATED if name in methods(model, inputs[None])), *CONTROLS]
    assert len(EVALUATED) > len(measured) - len(CONTROLS) >= 2


def pixels(number: int) -> Tensor:
    return torch.randn(3, 32, 32, generator=torch.Generator().manual_seed(number))


def mask() -> Tensor:
    on_object = torch.zeros(32, 32, dtype=torch.bool)
    on_object[0:16, 8:24] = True
    return on_object


def photo(number: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(number).integers(0, 256, (32, 32, 3), dtype=np.uint8))


class Pairs(torch.utils.data.Dataset[tuple[Tensor, int, Tensor]]):
    """A map-style data set."""

    def __len__(self) -> int:
        return IMAGES

    def __getitem__(self, number: int) -> tuple[Tensor, int, Tensor]:
        return pixels(number), number, mask()


def generated() -> Iterator[tuple[Tensor, int, Tensor]]:
    yield from (Pairs()[number] for number in range(IMAGES))


FORMS: dict[str, Data] = {
    "tuples": lambda: [Pairs()[number] for number in range(IMAGES)],
    "a generator": generated,
    "a torch data set": Pairs,
    "boxes": lambda: [(pixels(number), torch.tensor(number), [BOX]) for number in range(IMAGES)],
    "tensors of boxes": lambda: [(pixels(number), number, torch.tensor([BOX]).float()) for number in range(IMAGES)],
    "arrays of masks": lambda: [(pixels(number)[None], np.int64(number), mask().numpy()) for number in range(IMAGES)],
    "dictionaries": lambda: [
        {"pixel_values": pixels(number), "label": number, "mask": mask()} for number in range(IMAGES)
    ],
    "dictionaries of boxes": lambda: [
        {"image": pixels(number), "label": number, "boxes": [BOX]} for number in range(IMAGES)
    ],
}


def values(evaluation: Evaluation) -> list[float]:
    return [row["value"] for row in evaluation.records()]


@pytest.fixture
def expected(vit: ViTForImageClassification) -> list[float]:
    """By the metrics themselves."""
    numbers = []
    for number in range(IMAGES):
        inputs, rollout = pixels(number)[None], AttentionRollout(vit)
        attributions = rollout.attribute(inputs, target=number)
        asked = (lambda images: vit(images).logits), inputs, attributions, number
        numbers.append(float(deletion(*asked, patch_size=8, steps=4, removal=Mean()).auc))
        numbers.append(float(relevance_mass_accuracy(attributions, mask()[None])))
    return numbers


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_data(vit: ViTForImageClassification, expected: list[float], form: str) -> None:
    evaluation = evaluate(vit, FORMS[form](), **FEW, target="label")
    found = [row["value"] for row in evaluation.records() if row["method"] == "rollout"]
    assert found == pytest.approx(expected, abs=1e-6)
    assert {row["method"] for row in evaluation.records()} == {"rollout", *CONTROLS}
    assert [row["target"] for row in evaluation.records()[:: 2 * 4]] == [0, 1, 2]
    assert not evaluation.skipped


def save_photos(folder: Path) -> list[Path]:
    paths = [folder / f"{number}.png" for number in range(IMAGES)]
    for number, path in enumerate(paths):
        photo(number).save(path)
    return paths


def test_images_by_a_processor_and_from_files(vit: ViTForImageClassification, tmp_path: Path) -> None:
    """All the same images: at hand, as arrays, by their paths, as a folder and as a data set of the other library."""
    datasets = pytest.importorskip("datasets", reason="the datasets library is not installed")
    paths = save_photos(tmp_path)
    forms = [
        [(photo(number), None) for number in range(IMAGES)],
        [photo(number) for number in range(IMAGES)],
        [np.asarray(photo(number)) for number in range(IMAGES)],
        paths,
        [{"path": str(path)} for path in paths],
        tmp_path,
        str(tmp_path),
        datasets.Dataset.from_dict(
            {"image": [photo(number) for number in range(IMAGES)]},
            features=datasets.Features({"image": datasets.Image()}),
        ),
    ]
    few = {**FEW, "metrics": ["deletion"], "processor": ViTImageProcessor(size={"height": 32, "width": 32})}
    first, *others = (evaluate(vit, data, **few) for data in forms)
    for other in others:
        assert values(other) == values(first)


def test_results(vit: ViTForImageClassification) -> None:
    evaluation = evaluate(
        vit, Pairs(), **{**FEW, "methods": ["rollout", "gmar-l1"], "metrics": ["insertion", "deletion"]}
    )
    means = {(row["metric"], row["method"]): row for row in evaluation.means()}
    assert len(means) == 3 * 5  # insertion, deletion and their difference, two methods and three controls
    for metric in ("insertion", "deletion"):
        own = [row["value"] for row in evaluation.records() if (row["metric"], row["method"]) == (metric, "rollout")]
        assert means[metric, "rollout"]["mean"] == pytest.approx(np.mean(own))
        assert means[metric, "rollout"]["low"] is means[metric, "rollout"]["high"] is None  # of three images
        assert evaluation.curves(metric, "mean")["rollout"].auc.tolist() == pytest.approx(own)
    difference = next(
        row for row in evaluation.differences() if (row["metric"], row["other"]) == ("deletion", "gmar-l1")
    )
    expected = means["deletion", "rollout"]["mean"] - means["deletion", "gmar-l1"]["mean"]
    assert difference["difference"] == pytest.approx(expected, abs=1e-9)
    report = evaluation.to_markdown()
    assert report == repr(evaluation) == evaluation._repr_markdown_()
    for part in ("Pairs, 3 images", "the predicted class; 4 steps", "`captum_gmar.evaluate(...)`", "| rollout"):
        assert part in report
    figure, axes = evaluation.visualize(use_pyplot=False)
    assert [axis.get_title() for axis in axes] == [
        "insertion ↑\nmean",
        "deletion ↓\nmean",
        "insertion-deletion ↑\nmean",
    ]
    assert len(figure.axes) == 3


def test_methods_of_ones_own(vit: ViTForImageClassification) -> None:
    methods = {"mine": GradientRollout(vit), "pixels": lambda inputs, target: inputs.detach() ** 2}
    evaluation = evaluate(vit, Pairs(), methods, metrics=["average-gain"])
    assert [row["method"] for row in evaluation.means()] == ["mine", "pixels", *CONTROLS]
    theirs = evaluate(vit, Pairs(), ["gradient-rollout"], metrics=["average-gain"])
    ours = [row["value"] for row in evaluation.records() if row["method"] == "mine"]
    assert ours == [row["value"] for row in theirs.records() if row["method"] == "gradient-rollout"]


def test_any_module_by_its_forward_func(vit: ViTForImageClassification) -> None:
    class Wrapped(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = vit

        def forward(self, pixel_values: Tensor) -> dict[str, Tensor]:
            return {"scores": self.inner(pixel_values).logits}

    wrapped = Wrapped()
    found = evaluate(wrapped, Pairs(), **FEW, target="label", forward_func=lambda images: wrapped(images)["scores"])
    assert values(found) == pytest.approx(values(evaluate(vit, Pairs(), **FEW, target="label")), abs=1e-7)


def test_a_folder_keeps_what_is_finished(vit: ViTForImageClassification, tmp_path: Path) -> None:
    folder = tmp_path / "results"
    first = evaluate(vit, Pairs(), **FEW, output=folder)
    calls: list[int] = []

    def counted(images: Tensor) -> Tensor:
        calls.append(len(images))
        return vit(images).logits

    again = evaluate(vit, Pairs(), **FEW, output=str(folder), forward_func=counted)
    assert not calls
    assert values(again) == values(first)
    assert (folder / "summary.md").read_text() == again.to_markdown()
    more = evaluate(vit, Pairs(), **{**FEW, "methods": ["rollout", "gmar-l1"]}, output=folder)
    assert [row for row in more.records() if row["method"] != "gmar-l1"] == first.records()
    with pytest.raises(ValueError, match="holds results of other settings: seed is 0 there and 1 here"):
        evaluate(vit, Pairs(), **FEW, output=folder, seed=1)


def test_what_is_replaced_in_memory_is_measured_anew(vit: ViTForImageClassification, tmp_path: Path) -> None:
    data = [Pairs()[number] for number in range(IMAGES)]
    evaluate(vit, data, **FEW, output=tmp_path / "results")
    data[1] = (pixels(77), *data[1][1:])
    with pytest.warns(UserWarning, match="1 image is not what was measured under the same name.*: example 1"):
        found = evaluate(vit, data, **FEW, output=tmp_path / "results")
    assert values(found) == pytest.approx(values(evaluate(vit, data, **FEW)), abs=1e-6)


def test_what_cannot_be_measured_is_left_out_and_said(vit: ViTForImageClassification) -> None:
    data = [*(Pairs()[number] for number in range(IMAGES)), (pixels(3) * torch.nan, 0, mask())]
    with pytest.warns(UserWarning, match="left out 1 image, see `skipped`: example 3: "):
        evaluation = evaluate(vit, data, **FEW)
    assert [(skip.number, skip.name) for skip in evaluation.skipped] == [(3, "example 3")]
    assert len(evaluation.results) == IMAGES
    with pytest.raises(RuntimeError, match=r"^rollout: "):
        evaluate(vit, data[-1:], **FEW)


class Damaged(Pairs):
    """A data set with one item that cannot be read."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def __getitem__(self, number: int) -> tuple[Tensor, int, Tensor]:
        if number == 1:
            raise self.error
        return super().__getitem__(number)


@pytest.mark.parametrize("error", [OSError("disk gone"), KeyError("image"), RuntimeError("worker died"), IndexError()])
@pytest.mark.parametrize("target", ["predicted", "label"])
def test_an_item_that_raises_is_left_out_as_a_path_is(
    vit: ViTForImageClassification, tmp_path: Path, error: Exception, target: str
) -> None:
    options: dict[str, Any] = {**FEW, "target": target}
    with pytest.warns(UserWarning, match="left out 1 image, see `skipped`: example 1: "):
        evaluation = evaluate(vit, Damaged(error), **options, output=tmp_path / "results")
    reason = f"{type(error).__name__}: {error}".strip()
    assert [(skip.number, skip.name, skip.reason) for skip in evaluation.skipped] == [(1, "example 1", reason)]
    with (tmp_path / "results" / "skipped.csv").open(newline="", encoding="utf-8") as file:
        assert list(csv.reader(file))[1:] == [["1", "example 1", reason]]
    whole = evaluate(vit, Pairs(), **options).records()
    kept = [row["value"] for row in whole if row["example"] != 1 and row["method"] == "rollout"]
    assert kept == pytest.approx([row["value"] for row in evaluation.records() if row["method"] == "rollout"], abs=1e-6)


def test_an_item_that_was_measured_and_raises_now_is_left_out(vit: ViTForImageClassification, tmp_path: Path) -> None:
    evaluate(vit, Pairs(), **FEW, output=tmp_path / "results")
    with pytest.warns(UserWarning, match="example 1"):
        evaluation = evaluate(vit, Damaged(OSError("disk gone")), **FEW, output=tmp_path / "results")
    assert [result.number for result in evaluation.results] == [0, 2]
    assert [skip.reason for skip in evaluation.skipped] == ["OSError: disk gone"]


def test_where_every_item_raises_the_error_says_why(vit: ViTForImageClassification) -> None:
    class Gone(Pairs):
        def __getitem__(self, number: int) -> tuple[Tensor, int, Tensor]:
            raise OSError("disk gone")

    few = {**FEW, "metrics": ["deletion"]}
    with pytest.raises(ValueError, match=r"images that can be measured\. Got none: .*example 0: OSError: disk gone"):
        evaluate(vit, Gone(), **few)


def test_the_model_is_left_as_it_was(vit: ViTForImageClassification) -> None:
    before = {name: tensor.clone() for name, tensor in vit.state_dict().items()}
    evaluate(vit, Pairs(), **FEW)
    assert all(torch.equal(before[name], tensor) for name, tensor in vit.state_dict().items())
    assert not any(parameter.grad is not None for parameter in vit.parameters())


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"metrics": ["speed"]}, ValueError, r"metrics must be of insertion, .*. Got 'speed' instead"),
        ({"metrics": "insertion"}, TypeError, r"metrics must be a sequence of names. .* pass \[name\]"),
        ({"metrics": []}, ValueError, "metrics must be at least one name"),
        ({"removals": ["fire"]}, ValueError, "removals must be of zero, mean, blur"),
        ({"removals": []}, ValueError, "removals must be at least one name"),
        ({"methods": ["gmar-l3"]}, ValueError, "Got 'gmar-l3' instead. Near are gmar-l"),
        ({"methods": []}, ValueError, "methods must be at least one name"),
        ({"methods": {"mine": 3}}, TypeError, r"methods\['mine'\] must be a Captum Attribution"),
        ({"methods": {"": print}}, TypeError, "from names, other than .* Got the key '' instead"),
        ({"methods": {"random map": print}}, TypeError, r"from names, other than random map"),
        ({"target": "top1"}, ValueError, "target must be 'predicted' or 'label'. Got 'top1' instead"),
        ({"steps": 17}, ValueError, "steps must be at most the number of patches, 16. Got 17 instead"),
        ({"steps": 0}, ValueError, "steps must be an integer, one or more"),
        ({"limit": 1.5}, ValueError, "limit must be an integer, one or more"),
        ({"seed": -1}, ValueError, "seed must be an integer, zero or more"),
        ({"precision": "float16"}, ValueError, "precision must be 'float32' or 'bfloat16'"),
        ({"processor": 3}, TypeError, "processor must be the model's image processor. Got 3 instead"),
        ({"forward_func": 3}, TypeError, "forward_func must be a callable"),
        ({"forward_func": lambda pixels: 3}, TypeError, "The model must return a tensor .* Got int instead"),
        ({"output": 3}, TypeError, "output must be the path of a folder. Got 3 instead"),
        (
            {"data": {"a": pixels(0)}},
            TypeError,
            "data must be a path, a data set or an iterable of .* Got dict instead",
        ),
        ({"data": [(pixels(0), 0, mask() * torch.nan)]}, ValueError, "its mask must be of finite real numbers"),
        ({"data": [(pixels(0), 0, mask() * 1j)]}, ValueError, "its mask must be of finite real numbers"),
        ({"data": 3}, TypeError, "data must be a path, a data set or an iterable of .* Got int instead"),
        ({"data": []}, ValueError, "data must hold at least one image"),
        ({"data": [3]}, TypeError, "data must hold .* Got int of int instead"),
        ({"data": [{"label": 3}]}, TypeError, "example 0 must have one of image, pixel_values, path. Got label"),
        ({"data": [(pixels(0), 0, [[1, 2, 3]])]}, ValueError, "example 0: boxes must be a list of"),
        ({"data": [(np.zeros((32, 32, 3)), 0)]}, TypeError, r"of uint8, but got float64 of shape \(32, 32, 3\)\. Pass"),
        ({"data": [{"image": np.zeros((3, 32, 32), np.uint8)}]}, TypeError, r"but got uint8 of shape \(3, 32, 32\)"),
        (
            {"data": DataLoader(Pairs(), 2)},
            TypeError,
            r"label must be one class, but got Tensor of shape \(2,\)\. Pass",
        ),
        ({"data": [(photo(0), 0, [BOX])]}, TypeError, r"data must hold pixel values, .* or pass processor="),
        ({"data": [(pixels(0), None, mask())], "target": "label"}, ValueError, "images all have labels"),
        ({"data": [(pixels(0), 0)]}, ValueError, "metrics relevance-mass must go with data that has boxes or masks"),
        ({"data": "none.csv"}, OSError, "none.csv: no such file or folder"),
        ({"model": print}, TypeError, "model must be a torch.nn.Module"),
    ],
)
def test_bad_input(
    vit: ViTForImageClassification, changes: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        evaluate(**{"model": vit, "data": Pairs(), **FEW, **changes})


def test_a_folder_of_relevance_gains_alone(vit: ViTForImageClassification, tmp_path: Path) -> None:
    options: dict[str, Any] = {**FEW, "metrics": ["srg", "aopc"], "output": tmp_path / "results"}
    evaluation = evaluate(vit, [Pairs()[0], Pairs()[1]], **options)
    assert {row["metric"] for row in evaluation.means()} == {"srg", "aopc"}
    assert [path.name for path in (tmp_path / "results" / "plots").iterdir()] == ["relevance-gain.png"]
