"""Models and functions that cannot be explained."""

from functools import partial

import pytest
import torch
from methods import METHODS, PUBLIC
from torch import nn
from transformers import Dinov2Config, Dinov2ForImageClassification

from captum_gmar import AttentionRollout, get_method


def test_stochastic_depth(images):
    config = Dinov2Config(hidden_size=24, num_attention_heads=2, image_size=32, drop_path_rate=0.5, num_hidden_layers=3)
    model = Dinov2ForImageClassification(config)
    AttentionRollout(model.eval()).attribute(images)
    with pytest.raises(RuntimeError, match=r"model must run without stochastic depth.*Call model.eval\(\)"):
        AttentionRollout(model.train()).attribute(images)


MAKE = {**{name: METHODS[name].make for name in PUBLIC}, "published-gmar": partial(get_method, "published-gmar")}
EVERY_METHOD = pytest.mark.parametrize("make", MAKE.values(), ids=MAKE)


@pytest.mark.fault
@pytest.mark.parametrize("examples", [1, 4])
@EVERY_METHOD
def test_two_models(make, examples, others, vit, images):
    for other in others:
        for forward in (
            lambda pixels, other=other: vit(pixels).logits + other(pixels),
            lambda pixels, other=other: other(pixels) + vit(pixels).logits,
        ):
            with pytest.raises(RuntimeError, match=r"forward_func must (run|handle)|attention layer|over a 4x4 patch"):
                make(vit, forward_func=forward).attribute(images[:examples], 3)


def weighted(model, other):
    """Return functions of two models of which LibraGrad or the first layer hides the second."""
    return (
        lambda pixels: model(pixels).logits * other(pixels).softmax(-1),
        lambda pixels: model(pixels * other(pixels)[:, :1, None, None].sigmoid()).logits,
        lambda pixels: model(pixels).logits + other(pixels).detach(),
    )


@pytest.mark.fault
@EVERY_METHOD
def test_a_second_model_that_no_gradient_shows(make, others, vit, images):
    for forward in weighted(vit, others[0]):
        with pytest.raises(
            RuntimeError,
            match=r"forward_func must|attention .*layer|Run the model once|LibraGrad needs a rule for .*the func",
        ):
            make(vit, forward_func=forward).attribute(images, 3)


ORDER = torch.tensor([1, 2, 3, 0])


MOVED = {
    "flipped in and out": lambda model, pixels: model(pixels.flip(0)).logits.flip(0),
    "flipped in": lambda model, pixels: model(pixels.flip(-4)).logits,
    "flipped out": lambda model, pixels: model(pixels).logits.flip(-2),
    "rolled": lambda model, pixels: model(pixels.roll(1, 0)).logits.roll(-1, 0),
    "indexed": lambda model, pixels: model(pixels[ORDER]).logits[ORDER.argsort()],
    "selected": lambda model, pixels: model(pixels.index_select(0, ORDER)).logits.index_select(0, ORDER.argsort()),
    "gathered": lambda model, pixels: model(pixels).logits.gather(0, ORDER[:, None].expand(-1, 10)),
    "sorted": lambda model, pixels: model(pixels).logits.sort(0).values,
    "joined": lambda model, pixels: model(torch.cat([pixels[1:], pixels[:1]])).logits,
    "joined from the end": lambda model, pixels: torch.cat([*model(pixels).logits.split(2)][::-1], -2),
    "stacked": lambda model, pixels: torch.stack([*model(pixels).logits][::-1]),
}


KEPT = {
    "stacked": lambda model, pixels: model(torch.stack([image / image.std() for image in pixels])).logits,
    "joined": lambda model, pixels: torch.cat([2 * part for part in model(pixels).logits.split(3)]),
    "selected": lambda model, pixels: model(pixels.index_select(0, torch.arange(len(pixels)))).logits,
    "mirrored": lambda model, pixels: model(pixels.flip(-1)).logits,
    "channels in another order": lambda model, pixels: model(pixels[:, [2, 1, 0]]).logits,
    "classes in another order": lambda model, pixels: model(pixels).logits[:, [5, 6, 7, 8, 9]],
    "normalised": lambda model, pixels: model((pixels - pixels.mean()) / pixels.std()).logits,
    "grey": lambda model, pixels: model(pixels.mean(1, keepdim=True).expand_as(pixels)).logits,
    "resized": lambda model, pixels: model(nn.functional.interpolate(pixels[..., 4:28, 4:28], (32, 32))).logits,
}


@pytest.mark.fault
@EVERY_METHOD
def test_rows_that_are_moved(make, vit, images):
    for forward in MOVED.values():
        with pytest.raises(RuntimeError, match="forward_func must keep the examples in their order"):
            make(vit, forward_func=partial(forward, vit)).attribute(images, 3)
    for forward in KEPT.values():
        assert make(vit, forward_func=partial(forward, vit)).attribute(images, 3).isfinite().all()


@pytest.fixture(scope="module")
def others(make_vit):
    """Beside the first model: ones of the same grid, more layers, a finer grid or no attention; and no model at all."""
    torch.manual_seed(5)
    convolutions = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10))
    models = make_vit(1), make_vit(1, num_hidden_layers=4), make_vit(1, patch_size=4)
    with_attention = [lambda pixels, other=other: other(pixels).logits for other in models]
    return [*with_attention, convolutions, lambda pixels: pixels.flatten(1)[:, :10]]
