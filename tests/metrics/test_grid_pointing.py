"""Mosaics, and shares of their cells by hand."""

import pytest
import torch
from torch import tensor
from torch.testing import assert_close

from captum_gmar.metrics import grid_pointing_game, mosaic


def test_each_image_is_shrunk_to_its_cell():
    images = [torch.full((2, size, size), float(number)) for number, size in enumerate((8, 5, 16, 4))]
    found = mosaic(images, 5, 6)
    assert found.shape == (1, 2, 5, 6)
    rows = tensor([0, 0, 2, 2, 2]).view(5, 1) + tensor([0, 0, 0, 1, 1, 1])
    assert_close(found[0, 1], rows.float())


def test_shrinking_is_an_average():
    image = torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(0))
    found = mosaic([image] * 4, 8, 8)
    assert_close(found.mean((0, 2, 3)), image.mean((1, 2)), atol=0.02, rtol=0)
    assert_close(found[0, :, :4, :4], found[0, :, 4:, 4:])


def test_share_of_a_cell():
    maps = tensor([[4.0, 1.0, 0.0], [2.0, -9.0, 1.0]]).view(1, 1, 2, 3).expand(4, -1, -1, -1)
    assert_close(grid_pointing_game(maps, [0, 1, 2, 3]), tensor([4 / 8, 1 / 8, 2 / 8, 1 / 8]))


@pytest.mark.parametrize(
    ("images", "size", "error", "message"),
    [
        ([torch.ones(3, 4, 4)] * 3, (8, 8), ValueError, "images must be four, but got 3"),
        ([torch.ones(c, 4, 4) for c in (3, 3, 3, 1)], (8, 8), ValueError, r"same number of channels, but got \[1, 3\]"),
        (["cat"] * 4, (8, 8), TypeError, "inputs must be a tensor"),
        ([torch.ones(3, 4, 4)] * 4, (1, 8), ValueError, "integers of two or more, but got 1 and 8"),
    ],
)
def test_wrong_images(images, size, error, message):
    with pytest.raises(error, match=message):
        mosaic(images, *size)


@pytest.mark.parametrize("cells", [[0], [0, 4], [0, -1], [0, 1.0]])
def test_wrong_cells(cells):
    with pytest.raises(ValueError, match="cells must be one of 0 to 3 for each of 2 mosaics"):
        grid_pointing_game(torch.ones(2, 1, 4, 4), cells)
