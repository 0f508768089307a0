"""Relevance in the backward pass: where it begins, ends, and cannot go on."""

import gc

import pytest
import torch
from families import TimmLike as Pooling
from methods import METHODS, PUBLIC, implemented
from torch import nn
from torch.testing import assert_close
from transformers import Dinov2Config, Dinov2ForImageClassification

from captum_gmar import GMARAttribution, GradientRollout
from captum_gmar.engine.attention.forward import ForwardPass
from captum_gmar.engine.kernels import blocks, workspace
from captum_gmar.engine.kernels.batched import BatchedTap
from engine.attention.test_explain import TimmLike, Wrapped, spoil


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", METHODS)
def test_layers_of_several_blocks(name, dtype, vit, images, monkeypatch):
    method, inputs = implemented(METHODS[name].make(vit.to(dtype)), "blocks"), images.to(dtype)
    expected = method.relevance(inputs, [3, 0, 9, 3])
    monkeypatch.setitem(workspace.BLOCK_ELEMENTS, "cpu", 1)
    monkeypatch.setitem(workspace.ELEMENTS_APART, "cpu", 1)
    monkeypatch.setattr(workspace, "MIN_BLOCK_ROWS", 4)
    assert_close(method.relevance(inputs, [3, 0, 9, 3]), expected)


@pytest.mark.parametrize("name", PUBLIC)
@pytest.mark.parametrize("target", [3, 10])
@pytest.mark.parametrize("implementation", ["batched", "blocks", "fused"])
def test_nothing_is_kept_after_a_call(name, target, implementation, vit, images):
    """Memory comes back at once, not when the garbage collector finds a cycle; also after an error."""

    def kept():
        kinds = (workspace.Scratch, blocks.AttentionBlocks, blocks.GradientBlocks, ForwardPass, BatchedTap)
        return sum(type(found) in kinds for found in gc.get_objects())

    gc.collect()
    before = kept()
    gc.disable()
    try:
        if target == 10 and METHODS[name].reads_gradient:
            with pytest.raises(ValueError, match="target must be from 0 to"):
                implemented(METHODS[name].make(vit), implementation).relevance(images, target)
        else:
            implemented(METHODS[name].make(vit), implementation).relevance(images, target)
        assert kept() == before
    finally:
        gc.enable()


def test_one_patch_read_of_a_model_that_pools_them(images):
    model = Pooling("avg", {}).eval()

    def one(inputs):
        return model.head(model.blocks(model.patch_embed(inputs).flatten(2).mT)[:, 5])

    GMARAttribution(model).attribute(images, 3)
    with pytest.raises(RuntimeError, match=r"must read the patches after .*, but reads some patches\. Pass"):
        GMARAttribution(model, forward_func=one).attribute(images, 3)
    assert GMARAttribution(model, forward_func=one, tokens=(1, 1)).attribute(images, 3).gt(0).any()


@pytest.mark.parametrize("name", PUBLIC)
def test_the_caller_s_autocast_does_not_reach_our_own_arithmetic(name, vit, images):
    def in_half(inputs):
        with torch.autocast("cpu", torch.bfloat16):
            return vit(inputs).logits

    expected = METHODS[name].make(vit, forward_func=in_half).relevance(images, 3)
    with torch.autocast("cpu", torch.bfloat16):
        assert_close(METHODS[name].make(vit).relevance(images, 3), expected, rtol=1e-3, atol=1e-5)


class Unread(TimmLike):
    """Nobody reads the output of its last attention."""

    def encode(self, inputs):
        tokens = super().encode(inputs)
        self.attend(tokens[:, None], tokens[:, None], tokens[:, None])
        return tokens


class Quantised(TimmLike):
    """No gradient passes its layers, as those that are quantised for speed on processors."""

    def encode(self, inputs):
        return super().encode(inputs).detach().requires_grad_()


@pytest.mark.parametrize(
    ("layer", "make"),
    [
        (2, lambda vit: Wrapped(vit, torch.Tensor.detach)),
        (2, lambda vit: Wrapped(vit, torch.zeros_like)),
        (2, lambda vit: Unread()),
        (1, lambda vit: Quantised()),
    ],
    ids=["detached", "zeros", "unread", "quantised"],
)
@pytest.mark.parametrize("implementation", ["blocks", "batched"])
def test_a_target_that_does_not_depend_on_a_layer(vit, images, layer, make, implementation):
    method = implemented(GMARAttribution(make(vit)), implementation)
    with pytest.raises(RuntimeError, match=f"target must depend on attention layer {layer}, but that layer gets no"):
        method.attribute(images, 3)


@pytest.mark.parametrize(
    ("read", "reads", "tokens"),
    [
        (lambda tokens: tokens[:, 1:].mean(1), "the patches", "patches"),
        (lambda tokens: tokens[:, 7], "some patches", (1, 2)),
        (lambda tokens: tokens.mean(1), "token 0 and the patches", "patches"),
    ],
)
def test_a_target_that_reads_other_tokens_than_expected(images, read, reads, tokens):
    class OwnHead(TimmLike):
        def forward(self, inputs):
            return self.head(read(self.encode(inputs)))

    model = OwnHead()
    message = f"target must read token 0 after the last layer, but reads {reads}. Pass tokens="
    for method in (GMARAttribution, GradientRollout):
        with pytest.raises(RuntimeError, match=message):
            method(model).attribute(images, 3)
        assert method(model, tokens=tokens).attribute(images, 3).ne(0).any()


def test_half_of_what_is_expected_to_be_read(images):
    model = Dinov2ForImageClassification(Dinov2Config(hidden_size=24, num_attention_heads=2, image_size=32)).eval()
    with pytest.raises(RuntimeError, match=r"must read token 0 and the patches after .*, but reads token 0\. Pass"):
        GMARAttribution(model, forward_func=lambda x: model.dinov2(x).pooler_output).attribute(images, 3)


def test_layers_before_the_start_layer_are_not_met_again(vit, images):
    """Backward ends at the start layer: gradients that would be wrong below it do no harm."""
    expected = GMARAttribution(vit, start_layer=1).relevance(images, 3)
    block = next(m for m in vit.modules() if isinstance(m, nn.ModuleList))[0]
    block.register_forward_hook(lambda module, args, output: spoil(output))
    assert_close(GMARAttribution(vit, start_layer=1).relevance(images, 3), expected, rtol=0, atol=0)
    with pytest.raises(FloatingPointError, match="The gradient at attention layer 0 must be finite"):
        GMARAttribution(vit).attribute(images, 3)


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_a_gradient_that_is_not_finite_names_its_layer(vit, images, layer):
    block = next(m for m in vit.modules() if isinstance(m, nn.ModuleList))[layer]
    block.register_forward_hook(lambda module, args, output: spoil(output))
    with pytest.raises(FloatingPointError, match=f"The gradient at attention layer {layer} must be finite"):
        GMARAttribution(vit).attribute(images, 3)
