"""What is measured of a batch of examples, against the library's functions called one by one."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from transformers import ViTForImageClassification

from captum_gmar import GMARAttribution, GradientRollout
from captum_gmar.evaluation.catalogue import METRICS, metrics_of
from captum_gmar.evaluation.data.example import Example
from captum_gmar.evaluation.data.subject import GivenClassifier, Subject
from captum_gmar.evaluation.evaluate import make_methods
from captum_gmar.evaluation.faithfulness import Faithfulness
from captum_gmar.evaluation.runs.batches import Skipped
from captum_gmar.evaluation.runs.journal import Batch, Result, Row, result_of
from captum_gmar.evaluation.settings import EvaluationSettings
from captum_gmar.metrics import (
    Blur,
    Zero,
    area_over_curve,
    average_drop,
    class_sensitivity,
    completeness_error,
    deletion,
    grid_pointing_game,
    insertion,
    prediction_changes,
    random_map,
    relevance_mass_accuracy,
    symmetric_relevance_gain,
)
from captum_gmar.metrics.controls import CONTROLS

PATCH, STEPS = 8, 4
BOX = (4.0, 4.0, 20.0, 12.0)
NAMES = ("gmar-l1", "gradient-rollout")


def pixels_of(image: Image.Image) -> Tensor:
    return torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(image.getpixel((0, 0))[0]))


def mask_of(mask: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(mask)) > 0


@dataclass(frozen=True)
class SmallClassifier(GivenClassifier):
    """Takes images as :func:`pixels_of`, or another function, makes them."""

    pixels: Callable[[Image.Image], Tensor] = field(default=pixels_of)

    def pixel_values(self, image: Image.Image) -> Tensor:
        return self.pixels(image)

    def mask(self, mask: Image.Image) -> Tensor:
        return mask_of(mask)


def examples(count: int) -> list[Example]:
    """Every second of them with a box."""
    return [
        Example(str(i), None, partial(Image.new, "RGB", (32, 32), (i, 0, 0)), (BOX,) if i % 2 else ())
        for i in range(count)
    ]


Make = Callable[..., Faithfulness]


@pytest.fixture
def make(vit: ViTForImageClassification) -> Make:
    def logits(pixels: Tensor) -> Tensor:
        return vit(pixels).logits

    def make(
        data: list[Example],
        *,
        forward_func: Callable[[Tensor], Tensor] = logits,
        pixels: Callable[[Image.Image], Tensor] = pixels_of,
        note: Callable[[str], None] = print,
        metrics: tuple[str, ...] = tuple(METRICS),
        target: str = "predicted",
    ) -> Faithfulness:
        settings = EvaluationSettings(NAMES, metrics, ("blur", "zero"), target, STEPS)
        classifier = SmallClassifier(vit, None, forward_func=forward_func, pixels=pixels)
        methods = make_methods(NAMES, vit, forward_func)
        return Faithfulness(settings, methods, Subject(classifier, data, "a model", "data"), note)

    return make


def measure(work: Faithfulness, numbers: Sequence[int]) -> tuple[Batch, list[Skipped]]:
    """Measure all methods and controls."""
    seconds: dict[str, float] = {}
    records, skipped = work.batches.finish(numbers, partial(work.measure, (*NAMES, *CONTROLS), seconds))
    return Batch(tuple(records), seconds), skipped


def results(batch: Batch) -> list[Result]:
    """Return the results by the names of the examples, which are their numbers."""
    return [result_of(int(record.example.name), [record]) for record in batch.records]


def values_of(result: Result) -> dict[tuple[str, str, str], float]:
    return {(row.method, row.metric, row.removal): row.value for row in result.rows}


def values(batch: Batch) -> dict[tuple[int, str, str, str], float]:
    return {(own.number, *key): value for own in results(batch) for key, value in values_of(own).items()}


def test_values_are_those_of_the_metrics(vit: ViTForImageClassification, make: Make) -> None:
    batch, skipped = measure(make(examples(3)), [0, 1, 2])
    assert not skipped
    assert [result.number for result in results(batch)] == [0, 1, 2]

    def logits(pixels: Tensor) -> Tensor:
        return vit(pixels).logits

    mask = torch.zeros(1, 32, 32, dtype=torch.bool)
    mask[:, 4:12, 4:20] = True
    for number, result in enumerate(results(batch)):
        inputs = pixels_of(Image.new("RGB", (1, 1), (number, 0, 0)))
        target = int(logits(inputs).argmax())
        assert result.target == target
        found = values_of(result)
        for name, method in zip(NAMES, (GMARAttribution(vit), GradientRollout(vit)), strict=True):
            attributions = method.attribute(inputs, target=target)
            asked = (logits, inputs, attributions, target)
            options: dict[str, Any] = {"patch_size": PATCH, "steps": STEPS}
            gain = symmetric_relevance_gain(*asked, removal=Zero(), **options)
            other = int(logits(inputs)[0].topk(2).indices[1])
            for_other = logits, inputs, method.attribute(inputs, target=other), target
            expected = {
                ("insertion", "blur"): insertion(*asked, removal=Blur(), **options).auc,
                ("deletion", "zero"): deletion(*asked, removal=Zero(), **options).auc,
                ("srg", "zero"): gain.gain,
                ("srg-probability", "blur"): symmetric_relevance_gain(
                    *asked, removal=Blur(), softmax=True, **options
                ).gain,
                ("mif", "zero"): gain.most_relevant_first.auc,
                ("lif", "zero"): gain.least_relevant_first.auc,
                ("mif-accuracy", "zero"): prediction_changes(*asked[:3], removal=Zero(), **options).auc,
                ("lif-accuracy", "zero"): prediction_changes(
                    logits, inputs, -attributions, removal=Zero(), **options
                ).auc,
                ("aopc", "zero"): area_over_curve(deletion(*asked, removal=Zero(), **options)),
                ("class-gain", "zero"): gain.gain
                - symmetric_relevance_gain(*for_other, removal=Zero(), **options).gain,
                ("completeness-error", ""): completeness_error(attributions, logits(inputs)[:, target]),
                ("average-drop", ""): average_drop(*asked),
                ("class-sensitivity", ""): class_sensitivity(method.attribute, logits, inputs, patch_size=PATCH),
            }
            if number == 1:
                expected["relevance-mass", ""] = relevance_mass_accuracy(attributions, mask)
            for key, value in expected.items():
                assert found[name, *key] == pytest.approx(float(value), abs=1e-5), key
        assert ((NAMES[0], "relevance-mass", "") in found) == (number == 1)


def test_every_method_and_control_is_measured_alike(make: Make) -> None:
    batch, _ = measure(make(examples(2)), [0, 1])
    for result in results(batch):
        by_method = {name: [(row.metric, row.removal) for row in result.rows if row.method == name] for name in NAMES}
        for name in (*NAMES, *CONTROLS):
            own = [(row.metric, row.removal) for row in result.rows if row.method == name]
            assert own == by_method[NAMES[0]]
    known = {row.metric for row in results(batch)[1].rows}
    assert known == {*METRICS} - {"gridpg"}  # for which there are not enough images
    assert {row.removal for row in results(batch)[0].rows} == {"blur", "zero", ""}


def test_a_batch_gives_what_its_singles_give(make: Make) -> None:
    whole, _ = measure(make(examples(4)), [0, 1, 2, 3])
    singles = [measure(make(examples(4)), [number])[0] for number in range(4)]
    together = {key: value for single in singles for key, value in values(single).items()}
    assert values(whole) == pytest.approx(together, abs=2e-5)


def test_every_class_looks_at_its_own_cell(make: Make) -> None:
    """The mosaics hold each image in its cell, whatever batch it comes in, and GridPG is of the map for its class."""
    data = [Example(str(i), str(i), own.read) for i, own in enumerate(examples(6))]
    work = make(data, target="label", metrics=("gridpg",))
    (together,), _ = work.batches.finish(range(6), lambda some, at_once: [work.measures.mosaics(some)])
    assert list(together.indices) == list(range(6))
    assert len({*together.cells}) > 1
    for index, cell in zip(together.indices, together.cells, strict=True):
        small = F.interpolate(pixels_of(data[index].read()), (16, 16), mode="bilinear", antialias=True)[0]
        row, column = divmod(cell, 2)
        place = slice(16 * row, 16 * row + 16), slice(16 * column, 16 * column + 16)
        assert torch.equal(together.pixels[index][:, *place], small)
    (alone,), _ = work.batches.finish([4], lambda some, at_once: [work.measures.mosaics(some)])
    assert torch.equal(alone.pixels[0], together.pixels[4])

    found = values(measure(work, range(6))[0])
    for number in range(6):
        maps = GMARAttribution(work.model).attribute(together.pixels[[number]], target=number)
        expected = float(grid_pointing_game(maps, [together.cells[number]]))
        assert found[number, "gmar-l1", "gridpg", ""] == pytest.approx(expected, abs=1e-5)


def test_without_four_classes_there_is_no_mosaic(make: Make) -> None:
    data = [Example(str(i), str(i % 3), own.read) for i, own in enumerate(examples(6))]
    batch, skipped = measure(make(data, target="label", metrics=("gridpg", "aopc")), range(6))
    assert not skipped
    assert {row.metric for result in results(batch) for row in result.rows} == {"aopc"}


def test_random_maps_belong_to_the_example(make: Make) -> None:
    batch, _ = measure(make(examples(6), metrics=("insertion",)), [5, 2])
    single, _ = measure(make(examples(6), metrics=("insertion",)), [2])
    key = ("random map", "insertion", "zero")
    assert values_of(results(batch)[1])[key] == pytest.approx(values_of(results(single)[0])[key], abs=1e-6)
    maps = [random_map(torch.zeros(1, 3, 32, 32), seed, PATCH) for seed in (2, 5)]
    assert not torch.equal(*maps)


def test_curves_end_where_the_image_is_whole(vit: ViTForImageClassification, make: Make) -> None:
    batch, _ = measure(make(examples(1)), [0])
    inputs = pixels_of(Image.new("RGB", (1, 1)))
    with torch.no_grad():
        whole = float(vit(inputs).logits.softmax(1).max())
    rows = [row for row in results(batch)[0].rows if row.curve]
    assert {row.metric for row in rows} == {*["insertion", "deletion", "mif", "lif", "mif-accuracy", "lif-accuracy"]}
    assert {len(row.curve) for row in rows} == {STEPS + 1}
    for row in (row for row in rows if row.metric in ("insertion", "deletion")):
        assert row.curve[-1 if row.metric == "insertion" else 0] == pytest.approx(whole, abs=1e-5)


def test_an_image_that_cannot_be_read_is_left_out(make: Make, tmp_path: Path) -> None:
    def broken() -> Image.Image:
        raise OSError("photo.png: cannot be read\nas an image")

    data = examples(3)
    data[1] = Example("photo.png", None, broken)
    data[2] = Example("2", None, data[2].read, boxes=((0, 0, 99, 99),))
    batch, skipped = measure(make(data), [0, 1, 2])
    assert [result.number for result in results(batch)] == [0]
    assert [(skip.number, skip.name) for skip in skipped] == [(1, "photo.png"), (2, "2")]
    assert skipped[0].reason == "cannot be read as an image"
    assert "inside the image of 32x32 pixels" in skipped[1].reason


def test_an_image_that_a_method_fails_on_is_left_out_of_all(make: Make) -> None:
    work = make(
        examples(4), pixels=lambda image: pixels_of(image) * (torch.nan if image.getpixel((0, 0))[0] == 2 else 1)
    )
    batch, skipped = measure(work, [0, 1, 2, 3])
    assert [result.number for result in results(batch)] == [0, 1, 3]
    assert [skip.number for skip in skipped] == [2]
    assert skipped[0].reason.startswith("gmar-l1: ")
    alone, _ = measure(make(examples(4)), [3])
    ours = values_of(results(batch)[2])
    assert ours == pytest.approx(values_of(results(alone)[0]), abs=2e-5)


def test_a_model_that_no_method_explains_is_an_error(make: Make) -> None:
    """Not before it is clear that it is the model, as a bad image would never cost the rest."""
    work = make(examples(20), pixels=lambda image: pixels_of(image) * torch.nan, metrics=("average-gain",))
    batch, skipped = measure(work, range(15))
    assert (len(batch.records), len(skipped)) == (0, 15)
    with pytest.raises(RuntimeError, match=r"gmar-l1: "):
        measure(work, [15])


def test_images_of_several_sizes(vit: ViTForImageClassification, make: Make) -> None:
    def pixels(image: Image.Image) -> Tensor:
        wide = image.getpixel((0, 0))[0] == 1
        return torch.randn(1, 3, 32, 48 if wide else 32, generator=torch.Generator().manual_seed(0))

    def logits(images: Tensor) -> Tensor:
        return vit(images, interpolate_pos_encoding=True).logits

    data = [Example(own.name, None, own.read) for own in examples(3)]
    batch, skipped = measure(make(data, forward_func=logits, pixels=pixels), [0, 1, 2])
    assert not skipped
    first, second, third = map(values_of, results(batch))
    assert first["gmar-l1", "insertion", "zero"] == pytest.approx(third["gmar-l1", "insertion", "zero"], abs=1e-5)
    assert first["gmar-l1", "insertion", "zero"] != pytest.approx(second["gmar-l1", "insertion", "zero"], abs=1e-5)


def test_batches_that_do_not_fit_are_halved(vit: ViTForImageClassification, make: Make) -> None:
    largest: list[int] = []

    def logits(pixels: Tensor) -> Tensor:
        if len(pixels) > 4:
            raise torch.OutOfMemoryError("CUDA out of memory")
        largest.append(len(pixels))
        return vit(pixels).logits

    notes: list[str] = []
    metrics = tuple(name for name in METRICS if name not in metrics_of("anew"))
    work = make(examples(6), forward_func=logits, note=notes.append, metrics=metrics)
    batch, skipped = measure(work, range(6))
    assert not skipped
    assert notes == [f"out of memory: going on with {count} images at once" for count in (8, 4)]
    assert max(largest) == 4
    expected, _ = measure(make(examples(6), metrics=metrics), range(6))
    assert values(batch) == pytest.approx(values(expected), abs=2e-5)


def test_one_image_that_does_not_fit_is_an_error(make: Make) -> None:
    def logits(pixels: Tensor) -> Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(torch.OutOfMemoryError):
        measure(make(examples(2), forward_func=logits, note=lambda text: None), [0, 1])


def test_the_given_target_is_explained(make: Make) -> None:
    data = [Example(own.name, own.name, own.read) for own in examples(2)]
    batch, _ = measure(make(data, target="label", metrics=("insertion",)), [0, 1])
    assert [result.target for result in results(batch)] == [0, 1]


def test_time_is_counted_for_each_method(make: Make) -> None:
    batch, _ = measure(make(examples(1), metrics=("insertion",)), [0])
    assert set(batch.seconds) == {*NAMES}
    assert all(seconds > 0 for seconds in batch.seconds.values())


def test_row_order_is_that_of_the_question(make: Make) -> None:
    batch, _ = measure(make(examples(1), metrics=("deletion", "average-gain")), [0])
    rows = [row for row in results(batch)[0].rows if row.method == "gmar-l1"]
    assert [(row.metric, row.removal) for row in rows] == [
        ("deletion", "blur"),
        ("deletion", "zero"),
        ("average-gain", ""),
    ]
    assert all(isinstance(row, Row) for row in rows)


@pytest.mark.parametrize(
    ("metrics", "tied"),
    [
        (("deletion", "insertion"), 0),
        (("srg", "aopc", "mif"), 1 - STEPS),  # of the uniform map no patch is least relevant: both orders are the same
        (metrics_of("curve")[:-1], 1),  # without class-gain; of the blob some patches tie
    ],
)
def test_whole_and_emptied_images_run_once_for_all_methods(
    metrics: tuple[str, ...], tied: int, vit: ViTForImageClassification, make: Make
) -> None:
    images: list[int] = []

    def logits(pixels: Tensor) -> Tensor:
        images.append(0 if torch.is_grad_enabled() else len(pixels))  # methods run it with gradient
        return vit(pixels).logits

    measure(make(examples(3), forward_func=logits, metrics=metrics), [0, 1, 2])
    measured, curves, removals = len((*NAMES, *CONTROLS)), 2, 2
    assert sum(images) == 3 * (1 + removals * (2 + measured * curves * (STEPS - 1) + tied))


def test_a_bad_image_alone_is_left_out_once_others_are_done(make: Make) -> None:
    work = make(examples(2), pixels=lambda image: pixels_of(image) * torch.nan)
    work.batches.any_done = True  # by an earlier run
    batch, skipped = measure(work, [0, 1])
    assert not batch.records
    assert [skip.number for skip in skipped] == [0, 1]


def test_a_margin_that_no_patch_covers_is_left_alone(vit: ViTForImageClassification, make: Make) -> None:
    """The model is given it, and never reads it: all is as without."""

    def logits(pixels: Tensor) -> Tensor:
        assert pixels.shape[2:] == (35, 33)
        return vit(pixels[..., :32, :32]).logits

    def with_margin(image: Image.Image) -> Tensor:
        return torch.nn.functional.pad(pixels_of(image), (0, 1, 0, 3))

    found, skipped = measure(make(examples(1), forward_func=logits, pixels=with_margin), [0])
    assert not skipped
    expected, _ = measure(make(examples(1)), [0])
    assert values(found) == pytest.approx(values(expected), abs=1e-6)
