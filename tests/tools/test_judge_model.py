"""How the judge is made still runs, and its head reads no CLS token."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

pytest.importorskip("tools.judge_model.train", reason="the tools are not installed; they stand in a checkout")

from tools.demo_model.batches import QUESTIONS, Pool, _render_chunk
from tools.demo_model.fitting import Stage
from tools.judge_model import train
from tools.judge_model.network import WIDTH, build_judge, grow
from tools.judge_model.optimizing import orthogonalised


def test_a_step_on_crops_and_one_on_scenes_leave_the_cls_token_unread():
    images, areas = map(torch.from_numpy, _render_chunk(train.FIRST_SEED, train.FIRST_SEED + 2))
    head = nn.Sequential(nn.LayerNorm(WIDTH), nn.Linear(WIDTH, sum(QUESTIONS)))
    model = build_judge(7)
    for side in (7, 14):
        model = grow(model) if side == 14 else model
        before = model.classifier.weight.detach().clone()
        (loss,) = train._fit(model.train(), head, Pool(images, areas), Stage(side, 2, 1, 2, (3e-3, 1e-3)), seed=0)
        assert loss > 0
        assert not model.classifier.weight[:, :WIDTH].any()
        assert (model.classifier.weight != before).any()


def test_directions_of_muon_have_singular_values_near_one():
    matrices = torch.randn(3, 6, 4, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(orthogonalised(matrices))
    assert_close(values, torch.ones_like(values), atol=0.35, rtol=0)
