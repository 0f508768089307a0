"""How the judge is made still runs, and its head reads no CLS token."""

import pytest
import torch
from torch.testing import assert_close

pytest.importorskip("tools.judge_model.train", reason="the tools are not installed; they stand in a checkout")

from functools import partial

from tools.judge_model import train
from tools.judge_model.train import LAYERS, PREFIX, WIDTH, build_judge
from tools.training.loop import Stage
from tools.training.networks import grow, place_crop
from tools.training.optimizing import orthogonalised
from tools.training.scenes import fit_scenes, question_head, render_pool


def test_a_step_on_crops_and_one_on_scenes_leave_the_cls_token_unread():
    pool, generator = render_pool(train.FIRST_SEED, 2), torch.Generator().manual_seed(0)
    model, heads = build_judge(7), {LAYERS: question_head(WIDTH)}
    for side in (7, 14):
        model = grow(model, build_judge(14)) if side == 14 else model
        before = model.classifier.weight.detach().clone()
        stage, move = Stage(side, 2, 1, 2, (3e-3, 1e-3)), partial(place_crop, model, side)
        (loss,) = fit_scenes(model, heads, PREFIX, pool, stage, generator, move)
        assert loss > 0
        assert not model.classifier.weight[:, :WIDTH].any()
        assert (model.classifier.weight != before).any()


def test_directions_of_muon_have_singular_values_near_one():
    matrices = torch.randn(3, 6, 4, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(orthogonalised(matrices))
    assert_close(values, torch.ones_like(values), atol=0.35, rtol=0)
