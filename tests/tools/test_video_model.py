"""Clips show what they say, and how the video model is made still runs."""

import numpy as np
import pytest
import torch
from torch import nn

pytest.importorskip("tools.video_model.train", reason="the tools are not installed; they stand in a checkout")

from tools.training.loop import Stage, descend
from tools.training.optimizing import build_optimizers
from tools.video_model import train
from tools.video_model.clips import DIRECTIONS, FRAMES, SIDE, make_clip
from tools.video_model.train import PATCH, TUBE, WIDTH, build_video_model

WAYS = np.array(list(DIRECTIONS.values()))


def _way(mask):
    """Where the middle of what is seen goes from the first frame to the last: of column and row."""
    first, last = (np.argwhere(mask[frame]).mean(0)[::-1] for frame in (0, -1))
    return last - first


@pytest.mark.parametrize("seed", range(12))
def test_what_moves_moves_as_its_label_says(seed):
    clip = make_clip(seed, 1)
    assert int((WAYS @ _way(clip.masks[0])).argmax()) == clip.labels[0]
    still = (clip.frames == clip.frames[:1]).all((0, 3))
    assert still[~clip.masks[0].any(0)].all()  # and nothing else does


def test_a_tube_s_share_is_that_of_its_pixels():
    mask = np.zeros((FRAMES, SIDE, SIDE), dtype=bool)
    mask[2, :4, PATCH : 2 * PATCH] = True  # half of a patch, in one of the tube's two frames
    shares = train.tube_shares(mask)
    assert shares.shape == (FRAMES // TUBE, SIDE // PATCH, SIDE // PATCH)
    assert shares[1, 0, 1] == 0.25
    assert shares.sum() == 0.25


def test_a_step_changes_every_weight():
    torch.manual_seed(0)
    model, head = build_video_model(), nn.Linear(WIDTH, len(DIRECTIONS) + 1)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    clips = [make_clip(seed, moving) for seed, moving in ((0, 1), (1, 2))]
    stage = Stage(SIDE // PATCH, 2, 1, 2, (3e-3, 1e-3))
    (loss,) = descend(build_optimizers(model, head), stage, lambda: train._loss(model, head, clips))
    assert loss > 0
    assert all((parameter != old).any() for parameter, old in zip(model.parameters(), before, strict=True))
