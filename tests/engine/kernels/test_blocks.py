"""Blocks of query rows against the dense matrices."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from captum_gmar.engine.kernels import workspace
from captum_gmar.engine.kernels.blocks import AttentionBlocks
from captum_gmar.engine.kernels.layer import AttentionLayer
from engine.kernels.test_recompute import MASKS, make_mask, run, tensors


@pytest.mark.usefixtures("block_size")
@pytest.mark.parametrize("kind", MASKS)
def test_blocks_are_the_attention_and_its_gradient(kind):
    query, key, value, grad_output = tensors()
    mask = make_mask(kind)
    bias = 0 if mask is None else torch.zeros(mask.shape).masked_fill(~mask, -torch.inf) if kind == "boolean" else mask
    attention = (query @ key.mT / 2 + bias).softmax(-1)
    (gradient,) = torch.autograd.grad(attention @ value, attention, grad_output)
    seen = torch.full((2, *attention.shape), torch.nan, dtype=torch.float64)

    def copy(part, blocks):
        for _ in range(2):  # a second time over the blocks gives the same
            for block in blocks:
                seen[0, part, :, block.rows] = block.attention
                seen[1, part, :, block.rows] = block.gradient

    output = run(query, key, value, mask, on_blocks=copy)
    gradients = torch.autograd.grad(output, (query, key, value), grad_output)
    assert_close(seen, torch.stack([attention, gradient]).detach())
    expected = torch.autograd.grad(attention @ value, (query, key, value), grad_output)
    assert_close(gradients, expected)


@pytest.mark.usefixtures("block_size")
@pytest.mark.parametrize("kind", MASKS)
@pytest.mark.parametrize("reads", ["attention", "gradient", "nothing"])
def test_heads_apart(kind, reads):
    *qkv, grad_output = tensors()
    mask = make_mask(kind)
    seen = {False: [], True: []}

    def copy(part, blocks, apart):
        for heads in blocks.heads_apart() if apart else [blocks]:
            rows = [getattr(block, reads).clone() for block in heads if reads != "nothing"]
            seen[apart].append(torch.cat(rows, 2) if rows else torch.zeros(len(grad_output[part]), heads.shape[1], 0))

    gradients = [
        torch.autograd.grad(run(*qkv, mask, on_blocks=partial(copy, apart=apart)), qkv, grad_output)
        for apart in (False, True)
    ]
    assert_close(gradients[0], gradients[1])
    of_heads = [part.flatten(0, 1) for part in seen[True]]  # examples one after the other, if heads are apart
    assert_close(torch.cat(of_heads), torch.cat([part.flatten(0, 1) for part in seen[False]]))


@pytest.mark.usefixtures("block_size")
@pytest.mark.parametrize("kind", MASKS)
@pytest.mark.parametrize("apart", [False, True])
def test_rows_that_give_nothing_are_left_out(kind, apart):
    *qkv, grad_output = tensors()
    mask, rows = make_mask(kind), set()
    if kind == "additive":
        mask.requires_grad_()
        qkv.append(mask)
    grad_output = grad_output.detach().clone()
    grad_output[:, :, 5:] = 0

    def first_rows(part, blocks):
        blocks.keep_first(5)
        for heads in blocks.heads_apart() if apart else [blocks]:
            for block in heads:
                rows.update(range(11)[block.rows])
                assert block.attention.shape[2] == block.rows.stop - block.rows.start

    expected = torch.autograd.grad(F.scaled_dot_product_attention(*qkv[:3], mask), qkv, grad_output)
    found = torch.autograd.grad(run(*qkv[:3], mask, on_blocks=first_rows), qkv, grad_output)
    assert_close(found, expected)
    assert rows == set(range(5))


def test_spare_memory_is_neither_attention_nor_gradient():
    *qkv, grad_output = tensors()
    expected = torch.autograd.grad(run(*qkv, None), qkv, grad_output)

    def write(part, blocks):
        for block in blocks:
            gradient = block.gradient.clone()
            block.spare.fill_(torch.nan)
            attention = block.attention.clone()
            block.spare.fill_(torch.nan)
            assert_close(block.gradient, gradient, rtol=0, atol=0)
            assert_close(block.attention, attention, rtol=0, atol=0)

    assert_close(torch.autograd.grad(run(*qkv, None, on_blocks=write), qkv, grad_output), expected, rtol=0, atol=0)


def test_no_matrix_outlives_its_block():
    """Blocks share their memory, so that a layer holds two matrices of a block and no more."""
    *qkv, grad_output = tensors(examples=2, tokens=300)
    pointers = set()

    def remember(part, blocks):
        for block in blocks:
            assert block.attention.shape[-2] <= workspace.MIN_BLOCK_ROWS
            pointers.add((block.attention.data_ptr(), block.gradient.data_ptr()))

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(workspace.BLOCK_ELEMENTS, "cpu", 1)
        torch.autograd.grad(run(*qkv, None, on_blocks=remember), qkv, grad_output)
    assert len(pointers) <= 2  # the last block of an example has fewer rows


@pytest.mark.usefixtures("block_size")
@pytest.mark.parametrize("kind", MASKS)
@pytest.mark.parametrize("scale", [None, 0.3])
def test_blocks_without_gradient(kind, scale):
    query, key, _, _ = (t.detach() for t in tensors())
    mask = make_mask(kind)
    layer = AttentionLayer(query, key, mask, scale)
    one_hot = torch.eye(11, dtype=torch.float64).expand(3, 2, 11, 11)
    expected = F.scaled_dot_product_attention(query, key, one_hot, mask, scale=scale)
    memory, seen = workspace.Scratch(layer), torch.full_like(expected, torch.nan)
    for part in memory.parts():
        for block in AttentionBlocks(layer.part(part), memory):
            seen[part, :, block.rows] = block.attention
            with pytest.raises(RuntimeError, match="attention gradient requires a backward pass"):
                _ = block.gradient
    assert_close(seen, expected)
