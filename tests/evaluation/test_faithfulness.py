"""Measurements of a batch of examples."""

import pytest
import torch

from captum_gmar.evaluation.catalogue import METRICS
from captum_gmar.evaluation.data.example import Example
from captum_gmar.metrics.controls import CONTROLS
from evaluation.measuring import NAMES, examples, measure, pixels_of, results, values, values_of


def test_every_method_and_control_is_measured_alike(make):
    batch, _ = measure(make(examples(2)), [0, 1])
    for result in results(batch):
        by_method = {name: [(row.metric, row.removal) for row in result.rows if row.method == name] for name in NAMES}
        for name in (*NAMES, *CONTROLS):
            own = [(row.metric, row.removal) for row in result.rows if row.method == name]
            assert own == by_method[NAMES[0]]
    known = {row.metric for row in results(batch)[1].rows}
    assert known == {*METRICS} - {"gridpg"}  # for which there are not enough images
    assert {row.removal for row in results(batch)[0].rows} == {"blur", "zero", ""}


def test_a_batch_gives_what_its_singles_give(make):
    whole, _ = measure(make(examples(4)), [0, 1, 2, 3])
    singles = [measure(make(examples(4)), [number])[0] for number in range(4)]
    together = {key: value for single in singles for key, value in values(single).items()}
    assert values(whole) == pytest.approx(together, abs=2e-5)


def test_an_image_that_a_method_fails_on_is_left_out_of_all(make):
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


def test_images_of_several_sizes(vit, make):
    def pixels(image):
        wide = image.getpixel((0, 0))[0] == 1
        return torch.randn(1, 3, 32, 48 if wide else 32, generator=torch.Generator().manual_seed(0))

    def logits(images):
        return vit(images, interpolate_pos_encoding=True).logits

    data = [Example(own.name, None, own.read) for own in examples(3)]
    batch, skipped = measure(make(data, forward_func=logits, pixels=pixels), [0, 1, 2])
    assert not skipped
    first, second, third = map(values_of, results(batch))
    assert first["gmar-l1", "insertion", "zero"] == pytest.approx(third["gmar-l1", "insertion", "zero"], abs=1e-5)
    assert first["gmar-l1", "insertion", "zero"] != pytest.approx(second["gmar-l1", "insertion", "zero"], abs=1e-5)


def test_the_given_target_is_explained(make):
    data = [Example(own.name, own.name, own.read) for own in examples(2)]
    batch, _ = measure(make(data, target="label", metrics=("insertion",)), [0, 1])
    assert [result.target for result in results(batch)] == [0, 1]


def test_time_is_counted_for_each_method(make):
    batch, _ = measure(make(examples(1), metrics=("insertion",)), [0])
    assert set(batch.seconds) == {*NAMES}
    assert all(seconds > 0 for seconds in batch.seconds.values())


def test_a_margin_that_no_patch_covers_is_left_alone(vit, make):
    """The model is given it, and never reads it: all is as without."""

    def logits(pixels):
        assert pixels.shape[2:] == (35, 33)
        return vit(pixels[..., :32, :32]).logits

    def with_margin(image):
        return torch.nn.functional.pad(pixels_of(image), (0, 1, 0, 3))

    found, skipped = measure(make(examples(1), forward_func=logits, pixels=with_margin), [0])
    assert not skipped
    expected, _ = measure(make(examples(1)), [0])
    assert values(found) == pytest.approx(values(expected), abs=1e-6)
