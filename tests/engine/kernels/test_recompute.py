"""The replaced attention against torch's own, forward and backward, and its blocks against the dense matrices."""

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from captum_gmar.engine.kernels import recompute
from captum_gmar.engine.kernels.layer import AttentionLayer

MASKS = ["none", "boolean", "additive", "rows alike"]


def tensors(dtype=torch.float64, examples=3, heads=2, tokens=11, dim=4, device="cpu"):
    """Query, key and value (N, H, T, D), laid out as models do, and a gradient of the output."""
    generator = torch.Generator().manual_seed(0)
    shape = (examples, tokens, heads, dim)
    drawn = [torch.randn(shape, generator=generator, dtype=torch.float64).transpose(1, 2) for _ in range(4)]
    return [t.to(device, dtype).requires_grad_(i < 3) for i, t in enumerate(drawn)]


def make_mask(kind, examples=3, heads=2, tokens=11):
    generator = torch.Generator().manual_seed(1)
    if kind == "none":
        return None
    if kind == "boolean":
        return (torch.rand(tokens, tokens, generator=generator) > 0.4).logical_or(torch.eye(tokens).bool())
    shape = (1, heads, tokens, tokens) if kind == "additive" else (examples, 1, 1, tokens)
    return torch.randn(shape, generator=generator).double()


def make_tap(on_blocks, **options):
    """A tap whose listener calls ``on_blocks``."""
    listener = SimpleNamespace(on_blocks=lambda number, part, blocks: on_blocks(part, blocks))
    return recompute.BlocksTap(0, torch.zeros((), requires_grad=True), listener=listener, **options)


def run(query, key, value, mask, scale=None, on_blocks=lambda part, blocks: None):
    layer = AttentionLayer(query, key, mask, scale)
    return make_tap(on_blocks).attend(layer, value)


@pytest.mark.usefixtures("block_size")
@pytest.mark.parametrize("scale", [None, 0.3])
@pytest.mark.parametrize("kind", MASKS)
def test_equals_torch(kind, scale):
    *qkv, grad_output = tensors()
    mask = make_mask(kind)
    expected, output = F.scaled_dot_product_attention(*qkv, mask, scale=scale), run(*qkv, mask, scale)
    assert_close(output, expected, rtol=0, atol=0)
    assert_close(torch.autograd.grad(output, qkv, grad_output), torch.autograd.grad(expected, qkv, grad_output))


def test_gradient_of_an_additive_mask():
    *qkv, grad_output = tensors()
    mask = make_mask("additive").requires_grad_()
    expected = torch.autograd.grad(F.scaled_dot_product_attention(*qkv, mask), mask, grad_output)
    assert_close(torch.autograd.grad(run(*qkv, mask), mask, grad_output), expected)


@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(torch.float32, 1e-6), (torch.bfloat16, 1e-2), (torch.float16, 2e-3), (torch.float64, 1e-14)],
)
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_gradients_in_every_precision(dtype, tolerance, device):
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    *qkv, grad_output = tensors(dtype, tokens=197, dim=16, device=device)
    gradients = torch.autograd.grad(run(*qkv, None), qkv, grad_output)
    exact = [t.detach().double().requires_grad_() for t in qkv]
    expected = torch.autograd.grad(F.scaled_dot_product_attention(*exact), exact, grad_output.double())
    for gradient, reference in zip(gradients, expected, strict=True):
        assert gradient.dtype == dtype
        assert (gradient - reference).abs().max() <= tolerance * reference.abs().max()


@pytest.mark.usefixtures("block_size")
def test_gradients_do_not_depend_on_what_becomes_of_the_blocks():
    *qkv, grad_output = tensors()
    expected = torch.autograd.grad(run(*qkv, None), qkv, grad_output)

    def first_block_only(part, blocks):
        _ = next(iter(blocks)).attention

    def some_blocks_then_all(part, blocks):
        for index, block in enumerate(blocks):
            _ = block.attention if index % 2 else block.gradient
        for block in blocks:
            _ = block.attention

    def gradients_only(part, blocks):
        for block in blocks:
            _ = block.gradient

    for on_blocks in (first_block_only, some_blocks_then_all, gradients_only):
        output = run(*qkv, None, on_blocks=on_blocks)
        assert_close(torch.autograd.grad(output, qkv, grad_output), expected, rtol=0, atol=0)


def test_the_edge_alone_brings_autograd_here():
    query, key, value, grad_output = (t.detach() for t in tensors())
    seen = []
    alone = make_tap(lambda part, blocks: seen.extend(blocks))
    output = alone.attend(AttentionLayer(query, key, None, None), value)
    (zero,) = torch.autograd.grad(output, alone.edge, grad_output)
    assert zero == 0
    assert len(seen) == 1
