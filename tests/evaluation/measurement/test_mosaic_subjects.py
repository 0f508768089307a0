"""Images in a mosaic beside an example's own."""

from types import SimpleNamespace

import pytest
import torch

from captum_gmar.evaluation.measurement.rerun_metrics import MosaicMaker

CLASSES = 6


def images(damaged):
    """Each of its number, of a class of its own."""
    return [torch.full((1, 3, 8, 8), damaged.get(number, float(number))) for number in range(CLASSES)]


@pytest.mark.parametrize("damage", [torch.nan, torch.inf])
def test_an_image_that_is_damaged_stands_in_no_mosaic(damage):
    pixels = images({1: damage, 4: damage})
    reads = [SimpleNamespace(pixels=image, target=number) for number, image in enumerate(pixels)]
    batches = SimpleNamespace(examples=range(CLASSES), device=torch.device("cpu"), read=reads.__getitem__)
    whole = [0, 2, 3, 5]
    examples = SimpleNamespace(
        numbers=whole, targets=torch.tensor(whole), pixels=torch.cat([pixels[number] for number in whole])
    )
    found = MosaicMaker(batches, lambda inputs: inputs, seed=0).make(examples)
    assert found.indices == [0, 1, 2, 3]
    assert all(set(mosaic.unique().tolist()) == {0, 2, 3, 5} for mosaic in found.pixels)
