"""Examples that fail, and batches that do not fit."""

import pytest
import torch

from captum_gmar.evaluation.catalogue import METRICS, metrics_of
from captum_gmar.evaluation.data.example import Example
from evaluation.measuring import examples, measure, pixels_of, results, values


def test_an_image_that_cannot_be_read_is_left_out(make, tmp_path):
    def broken():
        raise OSError("photo.png cannot be read\nas an image")

    data = examples(3)
    data[1] = Example("photo.png", None, broken)
    data[2] = Example("2", None, data[2].read, boxes=((0, 0, 99, 99),))
    batch, skipped = measure(make(data), [0, 1, 2])
    assert [result.number for result in results(batch)] == [0]
    assert [(skip.number, skip.name) for skip in skipped] == [(1, "photo.png"), (2, "2")]
    assert skipped[0].reason == "cannot be read as an image"
    assert "inside the image of 32x32 pixels" in skipped[1].reason


def test_a_model_that_no_method_explains_is_an_error(make):
    """Blame the model only after many failures, as a bad image must not cost the rest."""
    work = make(examples(20), pixels=lambda image: pixels_of(image) * torch.nan, metrics=("average-gain",))
    batch, skipped = measure(work, range(15))
    assert (len(batch.records), len(skipped)) == (0, 15)
    with pytest.raises(RuntimeError, match=r"gmar-l1: "):
        measure(work, [15])


def test_batches_that_do_not_fit_are_halved(vit, make):
    largest = []

    def logits(pixels):
        if len(pixels) > 4:
            raise torch.OutOfMemoryError("CUDA out of memory")
        largest.append(len(pixels))
        return vit(pixels).logits

    notes = []
    metrics = tuple(name for name in METRICS if name not in metrics_of("anew"))
    work = make(examples(6), forward_func=logits, note=notes.append, metrics=metrics)
    batch, skipped = measure(work, range(6))
    assert not skipped
    assert notes == [f"out of memory: going on with {count} images at once" for count in (8, 4)]
    assert max(largest) == 4
    expected, _ = measure(make(examples(6), metrics=metrics), range(6))
    assert values(batch) == pytest.approx(values(expected), abs=2e-5)


def test_one_image_that_does_not_fit_is_an_error(make):
    def logits(pixels):
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(torch.OutOfMemoryError):
        measure(make(examples(2), forward_func=logits, note=lambda text: None), [0, 1])


def test_a_bad_image_alone_is_left_out_once_others_are_done(make):
    work = make(examples(2), pixels=lambda image: pixels_of(image) * torch.nan)
    work.batches.any_done = True  # by an earlier run
    batch, skipped = measure(work, [0, 1])
    assert not batch.records
    assert [skip.number for skip in skipped] == [0, 1]
