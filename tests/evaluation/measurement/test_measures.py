"""Measurements against the library's functions called one by one."""

import pytest
import torch
from PIL import Image

from captum_gmar import GMARAttribution, GradientRollout
from captum_gmar.evaluation.catalogue import metrics_of
from captum_gmar.evaluation.runs.journal import Row
from captum_gmar.metrics import (
    Blur,
    Zero,
    area_over_curve,
    class_sensitivity,
    completeness_error,
    deletion,
    insertion,
    masked_probability,
    prediction_changes,
    relevance_mass_accuracy,
    symmetric_relevance_gain,
)
from captum_gmar.metrics.controls import CONTROLS
from evaluation.measuring import NAMES, PATCH, STEPS, examples, measure, pixels_of, results, values_of


def test_values_are_those_of_the_metrics(vit, make):
    batch, skipped = measure(make(examples(3)), [0, 1, 2])
    assert not skipped
    assert [result.number for result in results(batch)] == [0, 1, 2]

    def logits(pixels):
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
            options = {"patch_size": PATCH, "steps": STEPS}
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
                ("average-drop", ""): masked_probability(*asked).drop,
                ("class-sensitivity", ""): class_sensitivity(method.attribute, logits, inputs, patch_size=PATCH),
            }
            if number == 1:
                expected["relevance-mass", ""] = relevance_mass_accuracy(attributions, mask)
            for key, value in expected.items():
                assert found[name, *key] == pytest.approx(float(value), abs=1e-5), key
        assert ((NAMES[0], "relevance-mass", "") in found) == (number == 1)


def test_curves_end_where_the_image_is_whole(vit, make):
    batch, _ = measure(make(examples(1)), [0])
    inputs = pixels_of(Image.new("RGB", (1, 1)))
    with torch.no_grad():
        whole = float(vit(inputs).logits.softmax(1).max())
    rows = [row for row in results(batch)[0].rows if row.curve]
    assert {row.metric for row in rows} == {*["insertion", "deletion", "mif", "lif", "mif-accuracy", "lif-accuracy"]}
    assert {len(row.curve) for row in rows} == {STEPS + 1}
    for row in (row for row in rows if row.metric in ("insertion", "deletion")):
        assert row.curve[-1 if row.metric == "insertion" else 0] == pytest.approx(whole, abs=1e-5)


def test_row_order_is_that_of_the_question(make):
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
def test_whole_and_emptied_images_run_once_for_all_methods(metrics, tied, vit, make):
    images = []

    def logits(pixels):
        images.append(0 if torch.is_grad_enabled() else len(pixels))  # methods run it with gradient
        return vit(pixels).logits

    measure(make(examples(3), forward_func=logits, metrics=metrics), [0, 1, 2])
    measured, curves, removals = len((*NAMES, *CONTROLS)), 2, 2
    assert sum(images) == 3 * (1 + removals * (2 + measured * curves * (STEPS - 1) + tied))
