"""Sums over segments: worked by hand, whole in every form, and refused where nothing fits."""

import numpy as np
import pytest
import torch

from captum_gmar.metrics import relevance_by_segment

RELEVANCE = torch.tensor([[4.0, -2.0], [1.0, 0.5]])  # of patches of 3×3 pixels
LABELS = torch.tensor([[7] * 4 + [2] * 2] * 6)  # the boundary cuts the right patches at a third


def sums(*arguments, **options):
    return {row.name: row.relevance for row in relevance_by_segment(*arguments, **options)}


def test_patches_are_divided_by_area():
    rows = relevance_by_segment(RELEVANCE, LABELS)
    assert [row.name for row in rows] == ["2", "7", "elsewhere"]
    assert [row.relevance for row in rows] == pytest.approx([-1.5 * 2 / 3, 5 - 1.5 / 3, 0])
    assert [row.area for row in rows] == pytest.approx([1 / 3, 2 / 3, 0])


def test_crop_and_what_lies_outside_the_photo():
    """The map covers columns 3 to 9 of a photo of 6: its right patches lie beyond the photo."""
    found = sums(RELEVANCE, {"right": (3, 0, 6, 6)}, size=(6, 6), crop=(3, 0, 9, 6))
    assert found == pytest.approx({"right": 5.0, "elsewhere": -1.5})


def test_boxes_of_parts_of_pixels():
    found = sums(RELEVANCE, {"box": (0.5, 0.25, 2.0, 3.0)}, size=(6, 6))
    assert found["box"] == pytest.approx(4 * 1.5 * 2.75 / 9)


def test_overlapping_masks_have_equal_parts():
    whole, upper = torch.ones(6, 6, dtype=torch.bool), torch.zeros(6, 6, dtype=torch.bool)
    upper[:3] = True
    assert sums(RELEVANCE, {"all": whole, "upper": upper}) == pytest.approx({"all": 2.5, "upper": 1, "elsewhere": 0})


@pytest.mark.parametrize("seed", range(4))
def test_sums_add_up_to_the_whole(seed):
    """In pixels of any photo, with any crop, for patches and for pixels."""
    generator = np.random.default_rng(seed)
    values = generator.standard_normal((3, 40, 56) if seed % 2 else (5, 7))
    labels = generator.integers(0, 6, (40, 56))
    crop = None if seed < 2 else (-3.3, 2.1, 51.7, 37.9)
    assert sum(sums(values, labels, crop=crop).values()) == pytest.approx(values.sum())
    if seed % 2 and crop is None:  # of pixels the sums are those of their pixels
        for label in range(6):
            assert sums(values, labels)[str(label)] == pytest.approx(values.sum(0)[labels == label].sum())


@pytest.mark.parametrize(
    ("segments", "options", "message"),
    [
        ({}, {}, r"segments must be at least one, .* but got no size"),
        ({"box": (0, 0, 1, 1)}, {}, r"boxes require size=\(height, width\), but got no size"),
        ({"mask": LABELS > 2}, {"size": (3, 3)}, r"all of one size, .* but got \[\(3, 3\), \(6, 6\)\]"),
        ({"box": (3, 0, 1, 1)}, {"size": (6, 6)}, r"segments\['box'\] must be left, top, right and bottom"),
        (LABELS, {"crop": (0, 0, 0, 6)}, r"crop must be left, top, right and bottom, in pixels"),
        (LABELS[0], {}, r"segments must be integers \(height, width\), but got torch.int64 \(6,\)"),
    ],
)
def test_segments_that_do_not_fit(segments, options, message):
    with pytest.raises(ValueError, match=message):
        relevance_by_segment(RELEVANCE, segments, **options)


@pytest.mark.parametrize("relevance", [torch.full((2, 2), torch.nan), torch.zeros(4), torch.zeros(0, 2)])
def test_maps_that_are_none(relevance):
    with pytest.raises(ValueError, match="relevance must be one finite map"):
        relevance_by_segment(relevance, LABELS)
