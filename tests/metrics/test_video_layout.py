"""Metrics of videos against loops over frames and tubes."""

import pytest
import torch
from torch.testing import assert_close

from captum_gmar.ablation import TokenRemoval
from captum_gmar.metrics import (
    Blur,
    Mean,
    Noise,
    Zero,
    deletion,
    insertion,
    prediction_changes,
    symmetric_relevance_gain,
)
from captum_gmar.metrics.video_layout import Sheet

N, F, C, H, W, TUBE, PATCH = 2, 6, 3, 8, 12, 2, 4
MOMENTS, ROWS, COLUMNS = F // TUBE, H // PATCH, W // PATCH


@pytest.fixture
def videos():
    return torch.rand(N, F, C, H, W, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.fixture
def relevance():
    return torch.rand(N, MOMENTS, ROWS, COLUMNS, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def classify(videos):
    """Compute logits (N, 2) that depend differently on every pixel."""
    assert videos.shape[1:] == (F, C, H, W)
    weights = torch.sin(torch.arange(2.0 * F * C * H * W, dtype=torch.float64)).view(2, -1)
    return (videos.flatten(1) ** 2) @ weights.T / 10


def replaced(removal, video):
    """Return a video with all pixels removed, each frame as an image."""
    nothing = torch.ones(F, 1, ROWS, COLUMNS, dtype=torch.bool)
    return removal.perturb(video, nothing)[:, 0]


def written_out(videos, relevance, removal, target):
    """Compute the target's probability while tubes are removed one by one, the most relevant first."""
    curves = []
    for video, scores in zip(videos, relevance, strict=True):
        left, other = video.clone(), replaced(removal, video)
        curve = [classify(left[None]).softmax(1)[0, target]]
        for place in scores.flatten().argsort(descending=True).tolist():
            moment, row, column = place // (ROWS * COLUMNS), place // COLUMNS % ROWS, place % COLUMNS
            frames, rows = slice(moment * TUBE, (moment + 1) * TUBE), slice(row * PATCH, (row + 1) * PATCH)
            tube = frames, slice(None), rows, slice(column * PATCH, (column + 1) * PATCH)
            left[tube] = other[tube]
            curve.append(classify(left[None]).softmax(1)[0, target])
        curves.append(torch.stack(curve))
    return torch.stack(curves)


@pytest.mark.parametrize("removal", [Zero(), Mean(), Blur(2.0), Noise()], ids=lambda removal: removal.name)
def test_tubes_leave_as_written_out(videos, relevance, removal):
    curve = deletion(classify, videos, relevance, 1, steps=MOMENTS * ROWS * COLUMNS, removal=removal)
    assert_close(curve.curve, written_out(videos, relevance, removal, 1), rtol=1e-5, atol=1e-7)
    assert curve.removal == removal.name


def test_attributions_with_a_tubes_size_are_the_same(videos, relevance):
    spread = relevance.repeat_interleave(TUBE, 1).repeat_interleave(PATCH, 2).repeat_interleave(PATCH, 3)
    attributions = spread[:, :, None].expand_as(videos)
    given = {"target": [0, 1], "steps": 4, "removal": Zero()}
    for metric in (insertion, deletion):
        tube_curve = metric(classify, videos, relevance, **given)
        pixel_curve = metric(classify, videos, attributions, patch_size=(TUBE, PATCH, PATCH), **given)
        assert_close(pixel_curve.curve, tube_curve.curve)
        frame_by_frame = metric(classify, videos, attributions, patch_size=PATCH, **given)
        assert frame_by_frame.curve.shape == (N, 5)
        assert not torch.equal(frame_by_frame.curve, tube_curve.curve)


def test_both_ends_of_the_order(videos, relevance):
    gain = symmetric_relevance_gain(classify, videos, relevance, 0, steps=6)
    assert_close(symmetric_relevance_gain(classify, videos, -relevance, 0, steps=6).gain, -gain.gain)
    assert prediction_changes(classify, videos, relevance, steps=6).curve.shape == (N, 7)


def test_a_sheet_and_back(videos):
    sheet = Sheet(MOMENTS, TUBE)
    sheets = sheet.to_sheets(videos)
    assert sheets.shape == (N, TUBE * C, MOMENTS * H, W)
    assert torch.equal(sheets[1, C + 2, H + 3, 5], videos[1, TUBE + 1, 2, 3, 5])  # its second frame
    assert torch.equal(sheet.to_videos(sheets), videos)


def test_bad_input(videos, relevance):
    with pytest.raises(ValueError, match=r"of whole tubes.*got shape \(2, 4, 2, 3\)"):
        deletion(classify, videos, torch.rand(N, 4, ROWS, COLUMNS))
    with pytest.raises(ValueError, match=r"patch size \(4, 4, 4\)"):
        deletion(classify, videos, videos, 0, patch_size=(4, PATCH, PATCH))
    with pytest.raises(ValueError, match=r"of whole tubes.*got shape \(2, 3, 5, 3\)"):
        deletion(classify, videos, torch.rand(N, MOMENTS, 5, COLUMNS))
    with pytest.raises(TypeError, match=r"removal must replace pixels of videos"):
        deletion(classify, videos, relevance, removal=TokenRemoval(torch.nn.Linear(1, 1)))
    with pytest.raises(TypeError, match="but got list"):
        deletion(classify, videos, [1.0])
