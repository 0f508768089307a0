"""GMARAttribution against the float64 oracle and its identities, on models of several shapes."""

import pytest
import torch
from oracle import attention_and_gradient, gmar, head_importance
from torch.testing import assert_close

from captum_gmar import GMARAttribution

TARGETS = [3, 0, 9, 3]


def relative_error(found, expected):
    return float((found - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize("norm", ["l1", "l2"])
@pytest.mark.parametrize(
    "changes", [{}, {"num_attention_heads": 1}, {"num_attention_heads": 12, "num_hidden_layers": 5, "patch_size": 4}]
)
def test_what_transformers_returns_as_attention(changes, norm, make_vit, images):
    model = make_vit(**changes)
    attention, gradient = attention_and_gradient(model, images, TARGETS)
    method = GMARAttribution(model, norm)
    expected = gmar(attention, gradient, norm)[:, 0, 1:]
    assert relative_error(method.relevance(images, TARGETS).flatten(1), expected) < 2e-5
    assert_close(method.head_importance(images, TARGETS).double(), head_importance(gradient, norm), rtol=2e-5, atol=0)


@pytest.mark.parametrize("recursion", ["rollout", "forward", "additive"])
def test_head_importance_is_of_all_layers(recursion, make_vit, images):
    model = make_vit(num_hidden_layers=4)
    expected = GMARAttribution(model).head_importance(images, TARGETS)
    method = GMARAttribution(model, recursion=recursion, start_layer=2)
    assert_close(method.head_importance(images, TARGETS), expected, rtol=0, atol=0)


def test_non_square_images_and_patches_that_do_not_cover_them(make_vit):
    model = make_vit(image_size=32)
    inputs = torch.randn(2, 3, 44, 70)  # 5 x 8 patches of 8 pixels; 4 and 6 pixels are left over
    method = GMARAttribution(model, forward_func=lambda x: model(x, interpolate_pos_encoding=True))
    relevance, attributions = method.relevance(inputs, 1), method.attribute(inputs, 1)
    assert relevance.shape == (2, 5, 8)
    assert attributions[..., 40:, :].eq(0).all()
    assert attributions[..., :, 64:].eq(0).all()
    blocks = attributions.sum(1)[:, :40, :64].unflatten(2, (8, 8)).unflatten(1, (5, 8))
    assert_close(blocks.sum((2, 4)), relevance)


@pytest.mark.parametrize("norm", ["l1", "l2"])
def test_zero_gradients_are_rollout_with_one_warning(norm, vit, images):
    attention, _ = attention_and_gradient(vit, images, TARGETS)
    rollout = torch.eye(17, dtype=torch.float64)
    for layer in attention:
        rollout = (layer.mean(1) + torch.eye(17)) / 2 @ rollout
    vit.classifier.weight.data.zero_()
    with pytest.warns(UserWarning, match="All gradients of an attention layer are zero") as warned:
        relevance = GMARAttribution(vit, norm).relevance(images, TARGETS)
    assert len(warned) == 1
    assert warned[0].filename == __file__
    assert relative_error(relevance.flatten(1), rollout[:, 0, 1:]) < 2e-5


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_precisions(dtype, vit, images):
    exact = GMARAttribution(vit).relevance(images, TARGETS)
    relevance = GMARAttribution(vit.to(dtype)).relevance(images.to(dtype), TARGETS)
    assert relevance.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert relative_error(relevance, exact) < {torch.bfloat16: 2e-2, torch.float16: 2e-3, torch.float64: 2e-5}[dtype]
