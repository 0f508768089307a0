"""Captum's own methods, made ready, against Captum called by hand and formulas written out; Captum's contract for them
and for PublishedGMAR."""

import copy
import pickle
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import captum.attr
import numpy as np
import pytest
import torch
import transformers
from conftest import TINY
from families import TorchEncoder
from snapshots import state
from torch.testing import assert_close

from captum_gmar.attr.captum_methods import (
    GradientShap,
    InputXGradient,
    IntegratedGradients,
    PatchAblation,
    PatchOcclusion,
    Saliency,
    TokenGradCam,
)
from captum_gmar.attr.published import PublishedGMAR

TARGETS = [3, 0, 9, 3]
BY_HAND = {  # our class, its options, Captum's, all that Captum has to be told
    "Saliency": (Saliency, {}, captum.attr.Saliency, {}),
    "Saliency, signed": (Saliency, {"abs": False}, captum.attr.Saliency, {"abs": False}),
    "Input X Gradient": (InputXGradient, {}, captum.attr.InputXGradient, {}),
    "Integrated Gradients": (
        IntegratedGradients,
        {"n_steps": 7, "internal_batch_size": 8},
        captum.attr.IntegratedGradients,
        {"baselines": 0, "n_steps": 7},
    ),
    "Gradient Shap": (
        GradientShap,
        {"n_samples": 3, "stdevs": 0.1},
        captum.attr.GradientShap,
        {"baselines": torch.zeros(1, 3, 32, 32), "n_samples": 3, "stdevs": 0.1},
    ),
    "Patch Occlusion": (
        PatchOcclusion,
        {"baselines": 0.5},
        captum.attr.Occlusion,
        {"sliding_window_shapes": (3, 8, 8), "strides": (3, 8, 8), "baselines": 0.5},
    ),
    "Patch Occlusion, other windows": (
        PatchOcclusion,
        {"sliding_window_shapes": (3, 16, 16)},
        captum.attr.Occlusion,
        {"sliding_window_shapes": (3, 16, 16), "strides": (3, 8, 8)},
    ),
    "Patch Ablation": (
        PatchAblation,
        {"perturbations_per_eval": 4},
        captum.attr.FeatureAblation,
        {"feature_mask": torch.arange(16).view(4, 4).repeat_interleave(8, 0).repeat_interleave(8, 1)[None, None]},
    ),
}
METHODS = [Saliency, InputXGradient, IntegratedGradients, GradientShap, PatchOcclusion, PatchAblation, TokenGradCam]
METHODS += [PublishedGMAR]
every_method = pytest.mark.parametrize("method", METHODS)


def attribute(method, *args, **options):
    """Call a method with the same random numbers each time."""
    np.random.seed(0)
    torch.manual_seed(0)
    return method.attribute(*args, **options)


@pytest.mark.parametrize("name", BY_HAND)
def test_equals_captum_called_by_hand(name, vit, images):
    ours, options, captums, told = BY_HAND[name]
    attributions = attribute(ours(vit), images, TARGETS, **options)
    by_hand = captums(lambda pixels: vit(pixels).logits)
    expected = attribute(by_hand, images.clone().requires_grad_(), target=TARGETS, **told)
    assert expected.abs().max() > 0
    assert_close(attributions, expected.detach(), atol=1e-6, rtol=1e-4)


def test_classes_of_numpy(vit, images):
    expected = Saliency(vit).attribute(images, TARGETS)
    assert_close(Saliency(vit).attribute(images, np.array(TARGETS)), expected, rtol=0, atol=0)
    assert_close(Saliency(vit).attribute(images, list(np.array(TARGETS))), expected, rtol=0, atol=0)


def interpolating(model):
    """For images of any size."""
    return lambda pixels: model(pixels, interpolate_pos_encoding=True)


@pytest.mark.parametrize("method", [PatchOcclusion, PatchAblation])
def test_difference_that_each_patch_makes(method, vit):
    images = torch.randn(2, 3, 16, 40)
    attributions = method(vit, interpolating(vit)).attribute(images, [1, 2])
    before = interpolating(vit)(images).logits[[0, 1], [1, 2]]
    for row in range(2):
        for column in range(5):
            patch = (..., slice(row * 8, row * 8 + 8), slice(column * 8, column * 8 + 8))
            without = images.clone()
            without[patch] = 0
            difference = before - interpolating(vit)(without).logits[[0, 1], [1, 2]]
            assert_close(attributions[patch], difference.detach()[:, None, None, None].expand(2, 3, 8, 8))


@pytest.mark.parametrize("method", [PatchOcclusion, PatchAblation])
def test_margin_that_the_model_does_not_read(method, vit):
    attributions = method(vit, interpolating(vit)).attribute(torch.randn(1, 3, 21, 35), 1)
    assert attributions[..., :16, :32].ne(0).all()
    assert attributions[..., 16:, :].eq(0).all()
    assert attributions[..., 32:].eq(0).all()


def test_margin_that_is_read_is_one_feature(vit):
    images = torch.randn(1, 3, 21, 35)

    def forward(pixels):
        return interpolating(vit)(pixels).logits + pixels[..., -1, -1].sum(1, keepdim=True)

    attributions = PatchAblation(vit, forward).attribute(images, 1)
    assert_close(attributions[..., 16:, :], images[..., -1, -1].sum().expand(1, 3, 5, 35))
    assert_close(attributions[..., 32:], images[..., -1, -1].sum().expand(1, 3, 21, 3))
    assert_close(
        attributions[..., :16, :32], PatchAblation(vit, interpolating(vit)).attribute(images, 1)[..., :16, :32]
    )


def grad_cam_of_tokens(model, images, targets, **options):
    """The formula (N, P) from the hidden states that the model returns, before ReLU."""
    output = model(images, output_hidden_states=True, **options)
    tokens = output.hidden_states[-2]  # those that enter the last layer
    selected = output.logits[torch.arange(len(images)), targets].sum()
    (gradient,) = torch.autograd.grad(selected, tokens)
    patches = images[0, 0].numel() // 64
    tokens, gradient = tokens[:, -patches:], gradient[:, -patches:]
    return (tokens * gradient.mean(1, keepdim=True)).sum(-1).detach()


def patch_sums(attributions):
    """(N, 3, 8 rows, 8 columns) → (N, P)"""
    return attributions.sum(1).unfold(1, 8, 8).unfold(2, 8, 8).sum((-1, -2)).flatten(1)


FAMILIES = ["ViT", "DeiT", "Dinov2WithRegisters", "Beit", "IJepa"]


@pytest.mark.parametrize("family", FAMILIES)
def test_grad_cam_of_tokens(family, images):
    torch.manual_seed(0)
    model = getattr(transformers, f"{family}ForImageClassification")(
        getattr(transformers, f"{family}Config")(**TINY)
    ).eval()
    method, expected = TokenGradCam(model), grad_cam_of_tokens(model, images, TARGETS)
    assert expected.gt(0).any()
    assert expected.lt(0).any()
    assert_close(patch_sums(method.attribute(images, TARGETS)), expected.relu(), atol=1e-6, rtol=1e-4)
    signed = method.attribute(images, TARGETS, relu_attributions=False)
    assert_close(patch_sums(signed), expected, atol=1e-6, rtol=1e-4)


def test_grad_cam_of_tokens_of_an_image_not_square(vit):
    images, options = torch.randn(2, 3, 16, 40), {"interpolate_pos_encoding": True}
    attributions = TokenGradCam(vit, partial(vit, **options)).attribute(images, [1, 2])
    expected = grad_cam_of_tokens(vit, images, [1, 2], **options).relu()
    assert_close(patch_sums(attributions), expected, atol=1e-6, rtol=1e-4)
    patch = attributions[:, :, 8:16, 24:32]  # evenly spread
    assert_close(patch, (expected[:, 5 + 3] / (3 * 64))[:, None, None, None].expand(2, 3, 8, 8), atol=1e-6, rtol=1e-4)


@pytest.mark.filterwarnings("ignore")  # dynamo's own
def test_grad_cam_of_a_compiled_model(vit, images):
    compiled = torch.compile(vit, backend="aot_eager")
    compiled(images.clone().requires_grad_())  # what is compiled passes by hooks that are set later
    assert_close(TokenGradCam(compiled).attribute(images, 3), TokenGradCam(vit).attribute(images, 3))


@every_method
def test_forms_of_target(method, vit, images):
    expected = attribute(method(vit), images, 3)
    for same in (torch.tensor(3), torch.tensor([3]), (3,), [3] * 4, torch.full((4,), 3), [(3,)] * 4):
        assert_close(attribute(method(vit), images, same), expected)
    assert_close(attribute(method(vit), images, target=3, additional_forward_args=(None,)), expected)
    assert not attribute(method(vit), images, 0).equal(expected)
    without_target = "Target not provided when necessary|forward_func must return one output per example"
    with pytest.raises((AssertionError, ValueError), match=without_target):
        method(vit).attribute(images)
    one_output = method(vit, forward_func=lambda pixels: vit(pixels).logits[:, 3])
    assert_close(attribute(one_output, images), expected)


@pytest.mark.parametrize("method", [method for method in METHODS if method is not GradientShap])  # which is random
def test_a_batch_is_its_examples(method, vit, images):
    singles = [method(vit).attribute(image[None], target) for image, target in zip(images, TARGETS, strict=True)]
    assert_close(torch.cat(singles), method(vit).attribute(images, TARGETS), atol=1e-5, rtol=1e-4)
    smooth = captum.attr.NoiseTunnel(method(vit)).attribute(images[:1], nt_samples=2, stdevs=0.0, target=TARGETS[0])
    assert_close(smooth, singles[0], atol=1e-5, rtol=1e-4)


@every_method
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_results_are_like_the_inputs(method, dtype, vit, images):
    images = images[:2].to(dtype).requires_grad_()
    attributions = method(vit.to(dtype)).attribute(images, 3)
    assert attributions.shape == images.shape
    assert attributions.dtype == dtype
    assert attributions.is_contiguous()
    assert not attributions.requires_grad
    (in_tuple,) = method(vit).attribute((images,), 3)
    assert in_tuple.shape == images.shape


@every_method
@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_without_autograd(method, context, vit, images):
    vit.requires_grad_(False)
    expected = attribute(method(vit), images, 3)
    with context():
        assert_close(attribute(method(vit), images.clone(), 3), expected)


@every_method
def test_nothing_is_changed(method, vit, images):
    before = state(vit)
    method(vit).attribute(images, 3)
    assert state(vit) == before
    with pytest.raises(AssertionError):
        method(vit).attribute(images, [3, 3])
    assert (state(vit), images.requires_grad, images.grad) == (before, False, None)


@every_method
def test_copies(method, vit, images):
    original = method(vit)
    expected = attribute(original, images[:1], 3)
    for copied in (copy.deepcopy(original), pickle.loads(pickle.dumps(original))):
        assert_close(attribute(copied, images[:1], 3), expected)


def test_convergence_delta(vit, images):
    method = IntegratedGradients(vit)
    attributions, delta = method.attribute(images, TARGETS, return_convergence_delta=True)
    logits = [vit(pixels).logits.detach()[range(4), TARGETS] for pixels in (images, torch.zeros_like(images))]
    assert_close(attributions.sum((1, 2, 3)), logits[0] - logits[1] + delta, atol=1e-4, rtol=1e-4)
    assert method.has_convergence_delta()
    (in_tuple,), _ = method.attribute((images,), TARGETS, return_convergence_delta=True)
    assert_close(in_tuple, attributions)


def test_options_of_the_constructor(vit, images):
    method = IntegratedGradients(vit, multiply_by_inputs=False)
    assert not method.multiplies_by_inputs
    assert_close(method.attribute(images, 3) * images, IntegratedGradients(vit).attribute(images, 3))


@every_method
def test_errors(method, vit, images):
    with pytest.raises(TypeError, match=r"model must be a torch.nn.Module, but got function."):
        method(lambda pixels: vit(pixels).logits)
    with pytest.raises(ValueError, match="inputs must be one tensor of pixel values, but got 2 inputs"):
        method(vit).attribute((images, images), 3)
    if method is not PublishedGMAR:
        with pytest.raises(NotImplementedError, match="attribute_future is not implemented for"):
            method(vit).attribute_future(images, 3)


def test_fault_an_option_that_captum_would_leave_out(vit, images):
    with pytest.raises(TypeError, match=r"options must be those of captum.attr.FeatureAblation, but got passes"):
        PatchAblation(vit).attribute(images, 3, passes=5)


def test_grad_cam_of_a_model_that_runs_twice(vit, images):
    def twice(pixels):
        return vit(pixels).logits + vit(pixels.flip(-1)).logits

    with pytest.raises(RuntimeError, match="must run once over 16 patch tokens, a 4x4 grid, but runs again"):
        TokenGradCam(vit, twice).attribute(images, 3)
    assert not any(module._forward_pre_hooks for module in vit.modules())


def test_grad_cam_while_another_thread_runs_the_model(vit, images):
    def beside_another(pixels):
        with ThreadPoolExecutor(1) as pool:
            pool.submit(vit, images).result(10)
        return vit(pixels).logits

    attributions = TokenGradCam(vit, beside_another).attribute(images, 3)
    assert_close(attributions, TokenGradCam(vit).attribute(images, 3))


def test_grad_cam_of_a_model_that_drops_tokens(images):
    model = TorchEncoder(2, read=lambda tokens: tokens[:, 5])
    model.encoder.layers[0].register_forward_hook(lambda *args: args[-1][:, :7])
    with pytest.raises(RuntimeError, match=r"but gets none\. Resize the images"):
        TokenGradCam(model).attribute(images, 3)
