"""Segments on a photo: named where they are, with the sums of the table, and nothing over anything else."""

import numpy as np
import pytest
from pictures import assert_nothing_overlaps

from captum_gmar.metrics import relevance_by_segment
from captum_gmar.visualization import visualize_segments

PHOTO = np.full((40, 60, 3), 128, np.uint8)
RELEVANCE = np.arange(24.0).reshape(4, 6) - 8
BOXES = {"left": (0, 0, 20, 40), "upper right": (20, 0, 60, 20)}


def test_names_and_sums_are_in_the_middle_of_their_segments():
    figure, axes = visualize_segments(RELEVANCE, PHOTO, BOXES, use_pyplot=False, title="evidence by thing")
    rows = {row.name: row.relevance for row in relevance_by_segment(RELEVANCE, BOXES, size=(40, 60))}
    marks = {text.get_text(): text.get_position() for text in axes[1].texts if "\n" in text.get_text()}
    expected = {f"left\n+{rows['left']:.3g}": (9.5, 19.5), f"upper right\n−{-rows['upper right']:.3g}": (39.5, 9.5)}
    assert marks == expected
    assert f"elsewhere +{rows['elsewhere']:.3g}" in axes[1].get_xlabel()
    assert_nothing_overlaps(figure)


def test_the_strongest_are_drawn_and_the_others_are_elsewhere():
    labels = np.arange(24).reshape(4, 6).repeat(10, 0).repeat(10, 1)
    _, axes = visualize_segments(RELEVANCE, PHOTO, labels, most=2, use_pyplot=False)
    marks = [text.get_text() for text in axes[1].texts if "\n" in text.get_text()]
    assert marks == ["23\n+15", "22\n+14"]
    assert f"elsewhere +{RELEVANCE.sum() - 29:.3g}" in axes[1].get_xlabel()


def test_segments_of_another_photo_are_refused():
    with pytest.raises(ValueError, match=r"segments must be at least one, all of one size"):
        visualize_segments(RELEVANCE, PHOTO, np.zeros((30, 60), int), use_pyplot=False)
    with pytest.raises(ValueError, match=r"segments must each hold a pixel of the photo"):
        visualize_segments(RELEVANCE, PHOTO, {"out": (70, 0, 80, 9)}, use_pyplot=False)
