"""How the windowed model is made still runs, and its second stage has a token for each patch of a scene."""

import pytest
import torch

pytest.importorskip("tools.swin_model.train", reason="the tools are not installed; they stand in a checkout")

from captum_gmar.demo.patches import GRID
from tools.swin_model import train
from tools.swin_model.train import STATES, WIDTH, build_swin
from tools.training.loop import Stage
from tools.training.scenes import fit_scenes, question_head, render_pool


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return build_swin(GRID).eval()


def test_a_step_on_crops_and_one_on_scenes_change_every_weight(model):
    pool, heads = render_pool(train.FIRST_SEED, 2), dict.fromkeys(STATES, question_head(WIDTH))
    for side in (7, GRID):
        before = [parameter.detach().clone() for parameter in model.parameters()]
        stage, generator = Stage(side, 2, 1, 2, (3e-3, 1e-3)), torch.Generator().manual_seed(0)
        (loss,) = fit_scenes(model, heads, 0, pool, stage, generator)
        assert loss > 0
        assert all((parameter != old).any() for parameter, old in zip(model.parameters(), before, strict=True))
    model.eval()


def test_small_images_do_not_change_what_is_written():
    """Where a stage is no larger than a window, transformers' layers no longer shift, until they are built anew."""
    torch.manual_seed(0)
    model, images = build_swin(GRID).eval(), torch.rand(1, 3, 8 * GRID, 8 * GRID)
    with torch.no_grad():
        before = model(images).logits
        model(images[..., :56, :56])
        assert not torch.equal(model(images).logits, before)
        train.restore_shifts(model)
        assert torch.equal(model(images).logits, before)


def test_what_a_patch_shows_is_asked_of_its_own_token(model):
    """A black patch changes its own token more than any other."""
    inputs = torch.rand(1, 3, 8 * GRID, 8 * GRID, generator=torch.Generator().manual_seed(0))
    dark = inputs.clone()
    dark[:, :, 8 * 5 : 8 * 6, 8 * 9 : 8 * 10] = -1
    with torch.no_grad():
        first, second = (model(values, output_hidden_states=True).hidden_states[1] for values in (inputs, dark))
    assert int((first - second).square().sum(-1).argmax()) == 5 * GRID + 9
