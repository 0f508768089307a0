"""Attention that the forward pass captures, passes by or refuses."""

import pytest
import torch
import torch.nn.functional as F
from methods import METHODS, PUBLIC
from torch import nn
from torch.testing import assert_close

from captum_gmar import AttentionRollout, GMARAttribution, GradientRollout
from captum_gmar.attr.token_gradients import TokenAttribution
from engine.attention.test_explain import TimmLike, Wrapped


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


class Windowed(TimmLike):
    def encode(self, inputs):
        tokens = self.tokens(inputs)
        windows = tokens[:, 1:].reshape(-1, 1, 4, 24)
        windows = self.attend(windows, windows, windows).reshape(len(inputs), 16, 24)
        tokens = torch.cat([tokens[:, :1], windows], 1)[:, None]
        return self.attend(tokens, tokens, tokens)[:, 0]


class Detached(TimmLike):
    def tokens(self, inputs):
        return super().tokens(inputs).detach()


class Halved(TimmLike):
    def tokens(self, inputs):
        return super().tokens(inputs)[:, :10]


class Dropping(TimmLike):
    def encode(self, inputs):
        tokens = super().encode(inputs)[:, None, :9]
        return self.attend(tokens, tokens, tokens)[:, 0]


class Parallel(TimmLike):
    def forward(self, inputs):
        first, second = (qkv(self.tokens(inputs)).unflatten(-1, (3, 2, 12)).permute(2, 0, 3, 1, 4) for qkv in self.qkv)
        return self.head((self.attend(*first) + self.attend(*second)).sum((1, 2)).repeat(1, 2))


class CutOff(TimmLike):
    def attend(self, q, k, v):
        return super().attend(q, k, v).detach()


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Windowed, r"but one before has queries of shape \(16, 1, 4, 24\)"),
        (Detached, r"from the inputs, with gradient, but does not\. Remove"),
        (Halved, "Halved must attend over 16 patch tokens, a 4x4 grid, of 4 examples"),
        (Dropping, r"over 17 tokens, but layer 2 has queries of shape \(4, 1, 9, 24\)"),
        (Parallel, "attention layer 1 must depend on layer 0"),
        (CutOff, "attention layer 1 must depend on layer 0"),
    ],
)
@pytest.mark.parametrize("make", [GMARAttribution, AttentionRollout])
def test_attention_that_is_refused(make, model, message, images):
    with pytest.raises(RuntimeError, match=message):
        make(model()).attribute(images, 3)


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
        with pytest.raises(RuntimeError, match=r"by one pooling attention at most, but reads them by 2\. Pass"):
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


def test_causal_attention_and_grouped_heads(images):
    class Grouped(TimmLike):
        def attend(self, q, k, v):
            return F.scaled_dot_product_attention(q, k[:, :1], v[:, :1], is_causal=True, scale=0.5, enable_gqa=True)

    class Plain(TimmLike):
        def attend(self, q, k, v):
            k, v = (t[:, :1].repeat(1, 2, 1, 1) for t in (k, v))
            return F.scaled_dot_product_attention(q, k, v, torch.ones(17, 17).tril().log(), scale=0.5)

    def last_token(model):  # the first one sees but itself
        return lambda inputs: model.head(model.encode(inputs)[:, -1])

    grouped, plain = Grouped(), Plain()
    methods = [GMARAttribution(model, tokens=(3, 3), forward_func=last_token(model)) for model in (grouped, plain)]
    assert_close(*(method.relevance(images, 3) for method in methods))
    found = methods[0].head_importance(images, 3)
    assert_close(found, methods[1].head_importance(images, 3))
    assert (found - 0.5).abs().max() > 0.01


class WithWeights(TimmLike):
    """Computes with the weights that torch's attention returns."""

    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(24, 2, batch_first=True)

    def forward(self, inputs):
        tokens = self.tokens(inputs)
        attended, weights = self.attention(tokens, tokens, tokens)
        return self.head((tokens + attended)[:, 0]) * (1 + weights.sum())


def test_weights_of_multihead_attention(images):
    AttentionRollout(WithWeights()).attribute(images)
    with pytest.raises(RuntimeError, match=r"computes with the attention weights that nn\.MultiheadAttention returns"):
        GMARAttribution(WithWeights()).attribute(images, 3)


def test_a_wrong_grid(vit, images):
    """A patch size that is not the model's must not pass with the surplus taken for prefix tokens."""
    vit.config.patch_size = 16
    with pytest.raises(RuntimeError, match=r"must attend over 4 patch tokens, a 2x2 grid.*\(4, 3, 17, 8\)"):
        GMARAttribution(vit).attribute(images, 3)


def test_a_model_that_runs_twice(make_vit, images):
    first, second = make_vit(), make_vit(seed=1)
    message = r"attention layer 3 must depend on layer 2.*Run one model in forward_func, and run it once"
    for forward in (lambda x: first(x).logits + first(x.flip(-1)).logits, lambda x: first(x).logits + second(x).logits):
        with pytest.raises(RuntimeError, match=message):
            GMARAttribution(first, forward_func=forward).attribute(images, 3)


def test_no_grad_in_the_model(vit, images):
    class Frozen(Wrapped):
        def forward(self, inputs):
            with torch.no_grad():
                return super().forward(inputs)

    with pytest.raises(RuntimeError, match="attention layer 0 needs a gradient"):
        GMARAttribution(Frozen(vit)).attribute(images, 3)


@pytest.mark.parametrize("method", [GMARAttribution, AttentionRollout])
@pytest.mark.parametrize("part", ["attention_probs", "hidden"])
def test_dropout(method, part, make_vit, images):
    others = dict.fromkeys(("attention_probs_dropout_prob", "hidden_dropout_prob"), 0.0)
    model = make_vit(**{**others, f"{part}_dropout_prob": 0.1})
    method(model).attribute(images, 3)
    with pytest.raises(RuntimeError, match=r"without dropout, but drops with p=0.1\. Call model.eval\(\)"):
        method(model.train()).attribute(images, 3)


def test_parameters_keep_no_gradient_graph(vit, images):
    """Within the pass no operation may depend on a parameter's gradient: that memory would be wasted."""
    seen = []
    vit.classifier.register_forward_hook(lambda module, args, output: seen.append(output.grad_fn))
    GMARAttribution(vit).attribute(images, 3)
    pending, leaves = [seen[0]], set()
    while pending:
        node = pending.pop()
        if hasattr(node, "variable"):
            leaves.add(tuple(node.variable.shape))
        pending.extend(child for child, _ in node.next_functions if child is not None)
    assert leaves == {()}  # nothing but the anchor
