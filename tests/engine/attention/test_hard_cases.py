"""Models and circumstances in which a map could be wrong without a word, or memory be kept."""

import gc

import pytest
import torch
import torch.nn.functional as F
from families import TimmLike as Pooling
from methods import METHODS, PUBLIC, implemented
from torch import nn
from torch.testing import assert_close
from transformers import Dinov2Config, Dinov2ForImageClassification

from captum_gmar import AttentionRollout, GMARAttribution, GradientRollout, LeGrad
from captum_gmar.attr.token_gradients import TokenAttribution
from captum_gmar.engine.attention.forward import ForwardPass
from captum_gmar.engine.kernels import blocks, workspace
from engine.attention.test_explain import TimmLike


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
        kinds = (workspace.Scratch, blocks.AttentionBlocks, blocks.GradientBlocks, ForwardPass)
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


class TokensFirst(TimmLike):
    def __init__(self, batch_first):
        super().__init__()
        layer = nn.TransformerEncoderLayer(24, 2, 48, batch_first=batch_first)
        self.encoder = nn.TransformerEncoder(layer, 3, enable_nested_tensor=False)
        self.batch_first = batch_first

    def forward(self, inputs):
        tokens = self.tokens(inputs)
        if self.batch_first:
            return self.head(self.encoder(tokens)[:, 0])
        return self.head(self.encoder(tokens.transpose(0, 1))[0])


@pytest.mark.parametrize("name", PUBLIC)
def test_tokens_first(name, images):
    usual, tokens_first = TokensFirst(True).eval(), TokensFirst(False).eval()
    tokens_first.load_state_dict(usual.state_dict())
    expected = METHODS[name].make(usual).relevance(images, 3)
    assert_close(METHODS[name].make(tokens_first).relevance(images, 3), expected)


def test_a_forward_func_that_legrad_cannot_use(vit, images):
    with pytest.raises(
        RuntimeError, match=r"Expected 12 outputs, of 3 layers for 4 examples, but got 4\. forward_func"
    ):
        LeGrad(vit, forward_func=lambda inputs: vit(inputs).logits[:4]).attribute(images, 3)


def reads_tokens(make):
    return isinstance(make, type) and issubclass(make, TokenAttribution)


@pytest.mark.parametrize("name", PUBLIC)
@pytest.mark.parametrize("text_first", [False, True])
@pytest.mark.parametrize("tokens", [17, 20])
def test_a_text_tower_of_the_image_s_shape(name, text_first, tokens, images):
    """Its attention is told from the image's by what it is computed from."""
    if name in ("LeGrad", "attention evidence") or reads_tokens(METHODS[name].make):
        pytest.skip("it needs layers in one list")
    model, text = TimmLike(prefix=1), torch.randn(4, 2, tokens, 12)

    def forward(inputs):
        scale = F.scaled_dot_product_attention(text, text, text).mean() if text_first else 1
        logits = model(inputs) * scale
        return logits if text_first else logits * F.scaled_dot_product_attention(text, text, text).mean()

    scale = F.scaled_dot_product_attention(text, text, text).mean()
    expected = METHODS[name].make(model, forward_func=lambda inputs: model(inputs) * scale).relevance(images, 3)
    assert_close(METHODS[name].make(model, forward_func=forward).relevance(images, 3), expected)


@pytest.mark.parametrize("make", [GMARAttribution, AttentionRollout])
def test_windows_before_a_global_layer(make, images):
    class Windowed(TimmLike):
        def encode(self, inputs):
            tokens = self.tokens(inputs)
            windows = tokens[:, 1:].reshape(-1, 1, 4, 24)
            windows = self.attend(windows, windows, windows).reshape(len(inputs), 16, 24)
            tokens = torch.cat([tokens[:, :1], windows], 1)[:, None]
            return self.attend(tokens, tokens, tokens)[:, 0]

    with pytest.raises(
        RuntimeError, match=r"before the first such layer came one with queries of shape \(16, 1, 4, 24\)"
    ):
        make(Windowed()).attribute(images, 3)


@pytest.mark.parametrize("make", [GMARAttribution, AttentionRollout])
def test_a_detached_patch_embedding(make, images):
    class Detached(TimmLike):
        def tokens(self, inputs):
            return super().tokens(inputs).detach()

    with pytest.raises(RuntimeError, match=r"but not over what is computed from the inputs\. Does"):
        make(Detached()).attribute(images, 3)


def test_one_patch_read_of_a_model_that_pools_them(images):
    model = Pooling("avg", {}).eval()

    def one(inputs):
        return model.head(model.blocks(model.patch_embed(inputs).flatten(2).mT)[:, 5])

    GMARAttribution(model).attribute(images, 3)
    with pytest.raises(RuntimeError, match=r"to read the patches after .*, but it reads some patches\. Say"):
        GMARAttribution(model, forward_func=one).attribute(images, 3)
    assert GMARAttribution(model, forward_func=one, tokens=(1, 1)).attribute(images, 3).gt(0).any()


class TwoPools(TimmLike):
    """Pools its tokens by attention twice; the logits are read from one, or from both."""

    def __init__(self, both):
        super().__init__()
        self.queries, self.both = nn.Parameter(torch.randn(2, 1, 1, 24)), both

    def forward(self, inputs):
        tokens = self.encode(inputs)[:, None]
        first, second = (self.attend(q.expand(len(tokens), 1, 1, 24), tokens, tokens)[:, 0, 0] for q in self.queries)
        return self.head(first + second if self.both else second)


def test_two_pooling_attentions(images):
    """Relevance begins as the one that is read weighs the tokens."""
    model = TwoPools(both=False)
    start = (model.queries[1, 0] @ model.encode(images).mT / 24**0.5).softmax(-1).detach()  # (N, 1, T)
    tokens = ["cls", *((row, column) for row in range(4) for column in range(4))]
    rows = [AttentionRollout(model, tokens=token).relevance(images).flatten(1) for token in tokens]
    assert_close(AttentionRollout(model).relevance(images).flatten(1), (start @ torch.stack(rows, 1))[:, 0])
    assert GMARAttribution(model).relevance(images, 3).gt(0).all()
    for make in (GMARAttribution, AttentionRollout):
        with pytest.raises(RuntimeError, match=r"by one pooling attention at most, but it reads 2\. Say"):
            make(TwoPools(both=True)).attribute(images, 3)


@pytest.mark.parametrize("heads", [(2, 3, 4), (4, 3, 2)])
@pytest.mark.parametrize("make", [GMARAttribution, AttentionRollout, GradientRollout])
def test_layers_with_different_numbers_of_heads(make, heads, images):
    class Pruned(TimmLike):
        def encode(self, inputs):
            tokens = self.tokens(inputs)
            for number in heads:
                q = tokens.unflatten(-1, (number, -1)).transpose(1, 2)
                tokens = tokens + self.attend(q, q, q).transpose(1, 2).flatten(2)
            return tokens

    assert make(Pruned()).relevance(images, 3).gt(0).any()


@pytest.mark.parametrize("kind", ["boolean", "additive"])
def test_a_token_that_may_look_nowhere(kind, images):
    """torch gives it zeros, and so its attention is."""
    mask = torch.ones(17, 17, dtype=torch.bool)
    mask[3] = False
    if kind == "additive":
        mask = torch.zeros(17, 17).masked_fill(~mask, -torch.inf)

    class Masked(TimmLike):
        def attend(self, q, k, v):
            return F.scaled_dot_product_attention(q, k, v, mask)

    model = Masked()
    for make in (GMARAttribution, AttentionRollout, GradientRollout):
        assert make(model).relevance(images, 3).isfinite().all()


@pytest.mark.parametrize("name", PUBLIC)
def test_the_caller_s_autocast_does_not_reach_our_own_arithmetic(name, vit, images):
    def in_half(inputs):
        with torch.autocast("cpu", torch.bfloat16):
            return vit(inputs).logits

    expected = METHODS[name].make(vit, forward_func=in_half).relevance(images, 3)
    with torch.autocast("cpu", torch.bfloat16):
        assert_close(METHODS[name].make(vit).relevance(images, 3), expected, rtol=1e-3, atol=1e-5)


def test_stochastic_depth(images):
    config = Dinov2Config(hidden_size=24, num_attention_heads=2, image_size=32, drop_path_rate=0.5, num_hidden_layers=3)
    model = Dinov2ForImageClassification(config)
    AttentionRollout(model.eval()).attribute(images)
    with pytest.raises(RuntimeError, match=r"Expected a model without stochastic depth.*Call model.eval\(\) first"):
        AttentionRollout(model.train()).attribute(images)
