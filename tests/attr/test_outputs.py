"""Outputs of other forms than (examples, classes), and functions of the model that return other rows."""

from functools import partial

import pytest
import torch
from field_families import FIELD_FAMILIES
from methods import METHODS, PUBLIC
from torch.testing import assert_close

from captum_gmar import AttentionEvidence, LeGrad, get_method, record_attention
from captum_gmar.ablation import gradient_of_mask

pytestmark = pytest.mark.fault

READING = [name for name in PUBLIC if METHODS[name].reads_gradient]
CAPTUMS = ["saliency", "input-x-gradient", "integrated-gradients", "occlusion", "feature-ablation", "layer-grad-cam"]
HALF = [1, (1,), None, torch.tensor(1), [1, 0, 1, 0], torch.tensor([1, 0, 1, 0]), (1, 0, 1), [(1,), (0,), (1,), (0,)]]


def of_queries(model):
    """Ten logits as five queries of two classes."""
    return lambda pixels: model(pixels).logits.unflatten(1, (5, 2))


@pytest.mark.parametrize("name", READING)
def test_the_whole_target_is_one_number(name, vit, images):
    method = METHODS[name].make(vit, forward_func=of_queries(vit))
    alone = METHODS[name].make(vit, forward_func=lambda pixels: vit(pixels).logits[:, 7])
    assert_close(method.relevance(images, (3, 1)), alone.relevance(images))
    for target in HALF[:3]:
        with pytest.raises(ValueError, match=r"target must be 2 indices into each output of shape \(5, 2\), such as"):
            method.relevance(images, target)
    with pytest.raises(ValueError, match=r"contrast must be 2 indices into each output of shape \(5, 2\), such as"):
        method.attribute(images, (3, 1), contrast=1)


@pytest.mark.parametrize("target", HALF, ids=repr)
def test_half_a_target(target, vit, images):
    forward, said = of_queries(vit), r"target must be 2 indices into each output of shape \(5, 2\)"
    with pytest.raises(ValueError, match=said):
        AttentionEvidence(vit, forward_func=forward).relevance(images, target)
    with pytest.raises(ValueError, match=said):
        gradient_of_mask(vit, images, target, loss="logit", forward_func=forward)
    if target is not None:
        with pytest.raises(ValueError, match=said):
            AttentionEvidence(vit, forward_func=forward).explain(images, torch.tensor([[1, 0]] * 4))


@pytest.mark.parametrize("name", CAPTUMS)
def test_half_a_target_of_captums_methods(name, vit, images):
    method, options = get_method(name, vit, forward_func=of_queries(vit)), {}
    if name == "integrated-gradients":
        options = {"n_steps": 2}
    assert method.attribute(images, (3, 1), **options).isfinite().all()
    for target in HALF:
        with pytest.raises(ValueError, match=r"target must be 2 indices into each output|Pass target="):
            method.attribute(images, target, **options)
    for wrong, says in ((10, "from 0 to 9, as there are 10 classes, but got 10"), ([0, 1, -1, 2], "but got -1")):
        with pytest.raises(ValueError, match=f"target must be .*{says}"):
            get_method(name, vit).attribute(images, wrong, **options)


@pytest.mark.parametrize(
    ("name", "half", "said"),
    [
        ("YOLOS", 1, r"target must be 2 indices .*\(query, class\)"),
        ("YOLOS", None, r"target must be 2 indices"),
        ("SegFormer, segments", 1, r"target must be 3 indices .*\(class, row, column\)"),
        ("SegFormer, segments", (1, 0), r"target must be 3 indices"),
        ("Swin", None, "Target not provided when necessary"),
    ],
)
def test_models_of_tasks(name, half, said):
    family = FIELD_FAMILIES[name]
    model, inputs = family.make().eval(), torch.randn(2, *family.shape)
    with pytest.raises((ValueError, AssertionError), match=said):
        AttentionEvidence(model).relevance(inputs, half)
    assert AttentionEvidence(model).relevance(inputs, family.target).isfinite().all()


def test_recorded_attention(vit, images):
    with pytest.raises(AssertionError, match="Target not provided when necessary"):
        record_attention(vit, images)


@pytest.mark.parametrize("name", [*READING, *CAPTUMS])
def test_rows_that_are_lost(name, vit, images):
    make = METHODS[name].make if name in METHODS else partial(get_method, name)
    method = make(vit, forward_func=lambda pixels: vit(pixels).logits[:1])
    with pytest.raises(RuntimeError, match=r"must return \d+ outputs, .*for \d+ examples, but got 1\. Handle"):
        method.attribute(images, 3)
    method = make(vit, forward_func=lambda pixels: vit(pixels).logits.sum())
    with pytest.raises(RuntimeError, match=r"must return \d+ outputs, .*for \d+ examples, but got 0\. Handle"):
        method.attribute(images)


@pytest.mark.parametrize("make", [AttentionEvidence, LeGrad])
def test_numbers_of_each_example_where_layers_run_apart(make, vit, images):
    factors = torch.tensor([[1.0], [2.0], [3.0], [4.0]])
    with pytest.raises(RuntimeError, match="any number of examples, each on its own, but fails on 12 rows"):
        make(vit, forward_func=lambda pixels: vit(pixels).logits * factors).relevance(images, 3)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch.func's own, at first use
@pytest.mark.parametrize("name", ["attention evidence", "GMAR l1", "rollout", "published-gmar", "saliency"])
def test_transforms(name, vit, images):
    method = (METHODS[name].make if name in METHODS else partial(get_method, name))(vit)

    def total(pixels):
        return method.attribute(pixels, 3).sum()

    def with_tangent():
        with torch.autograd.forward_ad.dual_level():
            total(torch.autograd.forward_ad.make_dual(images, images))

    for call in (
        with_tangent,
        lambda: torch.func.grad(total)(images),
        lambda: torch.vmap(lambda pixels: method.attribute(pixels[None], 3))(images),
        lambda: torch.func.jvp(total, (images,), (images,)),
    ):
        with pytest.raises(RuntimeError, match=r"inputs must be plain tensors outside of torch\.func's transforms"):
            call()
