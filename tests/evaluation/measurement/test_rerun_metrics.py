"""Metrics that run a method again, on mosaics, and control maps."""

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from captum_gmar import GMARAttribution
from captum_gmar.evaluation.data.example import Example
from captum_gmar.evaluation.measurement.rerun_metrics import MosaicMaker
from captum_gmar.metrics import grid_pointing_game, random_map
from evaluation.measuring import PATCH, examples, measure, pixels_of, results, values, values_of


def test_every_class_looks_at_its_own_cell(make):
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


def test_without_four_classes_there_is_no_mosaic(make):
    data = [Example(str(i), str(i % 3), own.read) for i, own in enumerate(examples(6))]
    batch, skipped = measure(make(data, target="label", metrics=("gridpg", "aopc")), range(6))
    assert not skipped
    assert {row.metric for result in results(batch) for row in result.rows} == {"aopc"}


def test_random_maps_belong_to_the_example(make):
    batch, _ = measure(make(examples(6), metrics=("insertion",)), [5, 2])
    single, _ = measure(make(examples(6), metrics=("insertion",)), [2])
    key = ("random map", "insertion", "zero")
    assert values_of(results(batch)[1])[key] == pytest.approx(values_of(results(single)[0])[key], abs=1e-6)
    maps = [random_map(torch.zeros(1, 3, 32, 32), seed, PATCH) for seed in (2, 5)]
    assert not torch.equal(*maps)


@pytest.mark.parametrize("damage", [torch.nan, torch.inf])
def test_an_image_that_is_damaged_stands_in_no_mosaic(damage):
    damaged = {1: damage, 4: damage}
    pixels = [torch.full((1, 3, 8, 8), damaged.get(number, float(number))) for number in range(6)]
    reads = [SimpleNamespace(pixels=image, target=number) for number, image in enumerate(pixels)]
    subject = SimpleNamespace(examples=range(6), device=torch.device("cpu"))
    batches = SimpleNamespace(subject=subject, read=reads.__getitem__)
    whole = [0, 2, 3, 5]
    examples = SimpleNamespace(
        numbers=whole, targets=torch.tensor(whole), pixels=torch.cat([pixels[number] for number in whole])
    )
    found = MosaicMaker(batches, lambda inputs: inputs, seed=0).make(examples)
    assert found.indices == [0, 1, 2, 3]
    assert all(set(mosaic.unique().tolist()) == {0, 2, 3, 5} for mosaic in found.pixels)
