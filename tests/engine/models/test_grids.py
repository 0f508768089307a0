"""Grids and fields by hand."""

import pytest
import torch
from torch.testing import assert_close

from captum_gmar.engine.models.grids import FieldGrid, KnownGrids, PackedGrid, overlap, resample, sum_fields


@pytest.mark.parametrize(
    ("coarse", "fine", "expected"),
    [
        (2, 4, [[0.5, 0.5, 0, 0], [0, 0, 0.5, 0.5]]),
        (2, 3, [[0.5, 0.5, 0], [0, 0, 1]]),  # merged by two, with the last padded
        (3, 4, [[0.75, 0.25, 0, 0], [0, 0.5, 0.5, 0], [0, 0, 0.25, 0.75]]),
    ],
)
def test_overlaps(coarse, fine, expected):
    assert_close(overlap(coarse, fine), torch.tensor(expected, dtype=torch.float64))


def test_resampling_preserves_sums():
    field = torch.rand(2, 3, 5, generator=torch.Generator().manual_seed(0))
    fine = resample(field, (7, 10))
    assert_close(fine.sum((1, 2)), field.sum((1, 2)))
    assert_close(sum_fields([field, torch.ones(2, 6, 5)]).sum((1, 2)), field.sum((1, 2)) + 30)
    assert_close(resample(torch.tensor([[[4.0]]]), (2, 2)), torch.ones(1, 2, 2))


def test_relevance_of_a_grid_over_videos():
    """Channels are the third dimension of (N, frames, channels, rows, columns)."""
    inputs = torch.zeros(1, 4, 3, 2, 2)
    relevance = torch.tensor([24.0, -48.0]).view(1, 2, 1, 1)
    spread = FieldGrid((2, 1, 1), (1, 3, 4)).spread_like(relevance, inputs)
    assert spread.shape == inputs.shape
    assert_close(spread[0, :, 0, 0, 0], torch.tensor([1.0, 1.0, -2.0, -2.0]))


def test_relevance_of_patches_that_are_cut_already():
    grid = PackedGrid((1, 2), (1,))
    spread = grid.spread_like(torch.tensor([[[3.0, 6.0]]]), torch.zeros(1, 4, 3))
    assert spread[0, :, 0].tolist() == [1, 2, 0, 0]
    assert grid.crop(spread) is spread


@pytest.mark.parametrize(("tokens", "expected"), [(56, (7, 8)), (16, (4, 4)), (12, (3, 4)), (50, None)])
def test_the_grid_of_a_number_of_tokens(tokens, expected):
    """A grid of 7x8 merges to 4x4 with padding and to 3x4 without."""
    assert KnownGrids([(1, 1, 1), (7, 8)]).grid_of(tokens) == expected


def test_grids_of_videos():
    grids = KnownGrids([(4, 4), (2, 2, 2)], frames=6)
    assert grids.grid_of(6 * 16) == (6, 4, 4)
    assert grids.grid_of(8) == (2, 2, 2)
