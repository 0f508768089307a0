"""The replaced attention against torch's own, forward and backward, and its blocks against the dense matrices."""

from functools import partial
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from captum_gmar.engine.kernels import recompute, workspace
from captum_gmar.engine.kernels.blocks import AttentionBlocks
from captum_gmar.engine.kernels.layer import AttentionLayer

MASKS = ["none", "boolean", "additive", "rows alike"]


def tensors(dtype=torch.float64, examples=3, heads=2, tokens=11, dim=4, device="cpu"):
    """Query, key and value (N, H, T, D), laid out as models do, and a gradient of the output."""
    generator = torch.Generator().manual_seed(0)
    shape = (examples, tokens, heads, dim)
    drawn = [torch.randn(shape, generator=generator, dtype=torch.float64).transpose(1, 2) for _ in range(4)]
    return [t.to(device, dtype).requires_grad_(i < 3) for i, t in enumerate(drawn)]


def make_mask(kind, dtype=torch.float64, examples=3, heads=2, tokens=11, device="cpu"):
    generator = torch.Generator().manual_seed(1)
    if kind == "none":
        return None
    if kind == "boolean":
        return (torch.rand(tokens, tokens, generator=generator) > 0.4).logical_or(torch.eye(tokens).bool()).to(device)
    shape = (1, heads, tokens, tokens) if kind == "additive" else (examples, 1, 1, tokens)
    return torch.randn(shape, generator=generator).to(device, dtype)


def make_tap(on_blocks, **options):
    """A tap whose listener calls ``on_blocks``."""
    listener = SimpleNamespace(on_blocks=lambda number, part, blocks: on_blocks(part, blocks))
    return recompute.BlocksTap(0, torch.zeros((), requires_grad=True), listener=listener, **options)


def run(query, key, value, mask, scale=None, on_blocks=lambda part, blocks: None):
    layer = AttentionLayer(query, key, mask, scale)
    return make_tap(on_blocks).attend(layer, value)


@pytest.fixture(params=[(1 << 19, 128), (1, 4), (300, 4), (500, 4)], ids=["whole", "rows", "example", "two examples"])
def block_size(request, monkeypatch):
    elements, rows = request.param
    monkeypatch.setitem(workspace.BLOCK_ELEMENTS, "cpu", elements)
    monkeypatch.setitem(workspace.ELEMENTS_APART, "cpu", elements)
    monkeypatch.setattr(workspace, "MIN_BLOCK_ROWS", rows)


@pytest.mark.usefixtures("block_size")
@pytest.mark.parametrize("scale", [None, 0.3])
@pytest.mark.parametrize("kind", MASKS)
def test_equals_torch(kind, scale):
    *qkv, grad_output = tensors()
    mask = make_mask(kind)
    expected, output = F.scaled_dot_product_attention(*qkv, mask, scale=scale), run(*qkv, mask, scale)
    assert_close(output, expected, rtol=0, atol=0)
    assert_close(torch.autograd.grad(output, qkv, grad_output), torch.autograd.grad(expected, qkv, grad_output))


@pytest.mark.usefixtures("block_size")
@pytest.mark.parametrize("kind", MASKS)
def test_gradcheck(kind):
    *qkv, _ = tensors(examples=2, tokens=5, dim=2)
    mask = make_mask(kind, examples=2, tokens=5)
    assert torch.autograd.gradcheck(partial(run, mask=mask), qkv)


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


def test_layers_take_the_same_memory():
    *qkv, grad_output = tensors()
    memory, pointers = workspace.Workspace(), set()

    def note(part, blocks):
        pointers.update(block.attention.data_ptr() for block in blocks)

    for _ in range(2):
        layer = AttentionLayer(*qkv[:2], None, None)
        output = make_tap(note, workspace=memory).attend(layer, qkv[2])
        torch.autograd.grad(output, qkv, grad_output)
    assert len(pointers) == 1


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
            with pytest.raises(RuntimeError, match="No gradient"):
                _ = block.gradient
    assert_close(seen, expected)
