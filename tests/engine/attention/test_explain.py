"""Meeting a model's attention: which layers are met, and what is said where that cannot be."""

import copy

import pytest
import torch
import torch.nn.functional as F
import transformers
from families import TorchEncoder
from methods import METHODS, PUBLIC
from oracle import Dense, attention_rollout, gmar, gradient_rollout, written_out
from torch import nn
from torch.testing import assert_close

from captum_gmar import AttentionRollout, GMARAttribution, GradientRollout, LeGrad, RawAttention


class TimmLike(nn.Module):
    """timm's way to call: one linear layer for query, key and value, fused attention, no config."""

    def __init__(self, layers=2, prefix=1):
        super().__init__()
        torch.manual_seed(0)
        self.patch_embed = nn.Conv2d(3, 24, 8, 8)
        self.prefix = nn.Parameter(torch.randn(1, prefix, 24))
        self.qkv = nn.ModuleList(nn.Linear(24, 72) for _ in range(layers))
        self.head = nn.Linear(24, 10)

    def tokens(self, inputs):
        patches = self.patch_embed(inputs).flatten(2).mT
        return torch.cat([self.prefix.expand(len(inputs), -1, -1), patches], 1)

    def attend(self, q, k, v):
        return F.scaled_dot_product_attention(q, k, v, dropout_p=0.0)

    def encode(self, inputs):
        tokens = self.tokens(inputs)
        for qkv in self.qkv:
            q, k, v = qkv(tokens).unflatten(-1, (3, 2, 12)).permute(2, 0, 3, 1, 4).unbind(0)
            tokens = tokens + self.attend(q, k, v).transpose(1, 2).flatten(2)
        return tokens

    def forward(self, inputs):
        return self.head(self.encode(inputs)[:, 0])


class Wrapped(nn.Module):
    """A ViT inside a user's own module."""

    def __init__(self, vit, change=lambda logits: logits):
        super().__init__()
        self.vit, self.change = vit, change

    def forward(self, inputs):
        return self.change(self.vit(inputs).logits)


@pytest.mark.parametrize("prefix", [1, 2, 5])
def test_a_model_without_config(images, prefix):
    model = TimmLike(prefix=prefix)
    dense = written_out(model, lambda copied, inputs: copied(inputs), images, [3] * 4)
    expected = gmar(dense.attention, dense.gradient, "l1")[:, 0, -16:].float()
    assert_close(GMARAttribution(model).relevance(images, 3).flatten(1), expected, rtol=1e-5, atol=1e-7)


def test_a_user_s_own_module_around_a_vit(vit, images):
    assert_close(GMARAttribution(Wrapped(vit)).relevance(images, 3), GMARAttribution(vit).relevance(images, 3))


@pytest.mark.filterwarnings("ignore")  # dynamo's own
@pytest.mark.parametrize("warm", [False, True])
def test_compiled_models(vit, images, warm):
    expected = GMARAttribution(vit).relevance(images, 3)
    compiled = torch.compile(vit, backend="aot_eager")
    function = torch.compile(lambda inputs: vit(inputs).logits, backend="aot_eager")
    if warm:
        compiled(images), function(images)
    assert_close(GMARAttribution(compiled).relevance(images, 3), expected)
    assert_close(GMARAttribution(vit, forward_func=function).relevance(images, 3), expected)


class Encoder(TimmLike):
    """A model of torch's own layers."""

    def __init__(self, **options):
        super().__init__()
        layer = nn.TransformerEncoderLayer(24, 2, 48, batch_first=True, **options)
        self.encoder = nn.TransformerEncoder(layer, 3, enable_nested_tensor=False)

    def forward(self, inputs):
        return self.head(self.encoder(self.tokens(inputs))[:, 0])


def by_hand(model, images, target):
    """A and G of an Encoder, its layers written out."""
    tokens, kept = model.tokens(images), []
    for layer in model.encoder.layers:
        attention = layer.self_attn
        entering = layer.norm1(tokens) if layer.norm_first else tokens
        q, k, v = (
            F.linear(entering, attention.in_proj_weight, attention.in_proj_bias)
            .unflatten(-1, (3, 2, 12))
            .permute(2, 0, 3, 1, 4)
        )
        kept.append((q @ k.mT / 12**0.5).softmax(-1))
        attended = attention.out_proj((kept[-1] @ v).transpose(1, 2).flatten(2))
        if layer.norm_first:
            tokens = tokens + attended
            tokens = tokens + layer.linear2(layer.linear1(layer.norm2(tokens)).relu())
        else:
            tokens = layer.norm1(tokens + attended)
            tokens = layer.norm2(tokens + layer.linear2(layer.linear1(tokens).relu()))
    gradients = torch.autograd.grad(model.head(tokens[:, 0])[:, target].sum(), kept)
    return [a.detach() for a in kept], list(gradients)


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("norm_first", [False, True])
def test_transformer_encoder(images, norm_first, frozen):
    model = Encoder(norm_first=norm_first).eval().requires_grad_(not frozen)
    dense = Dense(*by_hand(copy.deepcopy(model).double().requires_grad_(), images.double(), 3))
    expected = gradient_rollout(dense)[:, 0, -16:].float()
    assert_close(GradientRollout(model).relevance(images, 3).flatten(1), expected, rtol=1e-4, atol=1e-6)
    expected = attention_rollout(dense)[:, 0, -16:].float()
    assert_close(AttentionRollout(model).relevance(images).flatten(1), expected, rtol=1e-4, atol=1e-6)
    assert LeGrad(model).relevance(images, 3).gt(0).any()


def test_separate_queries_and_keys_of_multihead_attention(images):
    class Separate(TimmLike):
        def __init__(self):
            super().__init__()
            self.attention = nn.MultiheadAttention(24, 2, kdim=12, vdim=12, add_zero_attn=False)

        def forward(self, inputs):
            tokens = self.tokens(inputs).transpose(0, 1)
            half = tokens[..., :12]
            return self.head((tokens + self.attention(tokens, half, half, need_weights=False)[0])[0])

    model = Separate()
    tokens = model.tokens(images).transpose(0, 1)
    _, weights = model.attention(tokens, tokens[..., :12], tokens[..., :12])
    assert_close(RawAttention(model).relevance(images).flatten(1), weights[:, 0, -16:].detach())


SMALL = {"hidden_size": 24, "num_attention_heads": 3, "num_hidden_layers": 3, "intermediate_size": 48}
SENTENCES = torch.tensor([[1, 5, 7, 2], [1, 9, 8, 2]])


@pytest.mark.parametrize("make", [GMARAttribution, GradientRollout, LeGrad, AttentionRollout])
@pytest.mark.parametrize("name", ["CLIP", "Siglip"])
def test_an_image_explained_by_a_sentence(images, name, make):
    """The text tower's attention passes by: the same comes out where its embedding is a constant."""
    torch.manual_seed(0)
    text = {**SMALL, "vocab_size": 10, "bos_token_id": 1, "eos_token_id": 2, "projection_size": 24}
    config = getattr(transformers, f"{name}Config")(
        text_config=text, vision_config={**SMALL, "image_size": 32, "patch_size": 8}, projection_dim=24
    )
    model = getattr(transformers, f"{name}Model")(config).eval()
    torch.nn.init.normal_(next(p for n, p in model.named_parameters() if "patch_embedding" in n), std=0.3)
    output = model(pixel_values=images, input_ids=SENTENCES)

    def with_text_tower(pixels):
        return model(pixel_values=pixels, input_ids=SENTENCES).logits_per_image

    def with_constant(pixels):
        embedding = model.get_image_features(pixels)
        embedding = getattr(embedding, "pooler_output", embedding)  # in transformers 5 and 4
        return (
            embedding / embedding.norm(dim=-1, keepdim=True) @ output.text_embeds.detach().T * model.logit_scale.exp()
        )

    found = make(model, forward_func=with_text_tower).relevance(images, [0, 1, 1, 0])
    assert_close(found, make(model, forward_func=with_constant).relevance(images, [0, 1, 1, 0]), rtol=1e-4, atol=1e-7)


def test_no_logits(vit, images):
    with pytest.raises(TypeError, match=r"output with a `logits` tensor, but got BaseModelOutputWithPooling"):
        GMARAttribution(vit.vit).attribute(images, 3)
    with pytest.raises(TypeError, match=r"but got dict. Pass forward_func="):
        GMARAttribution(Wrapped(vit, lambda logits: {"scores": logits})).attribute(images, 3)


def test_start_layers_that_the_model_does_not_have(vit, images):
    for layer in (3, -4):
        with pytest.raises(ValueError, match=rf"start_layer must be one of the model's 3 layers, but got {layer}"):
            GMARAttribution(vit, start_layer=layer).attribute(images, 3)
        with pytest.raises(ValueError, match="start_layer must be one of the model's 3 layers"):
            AttentionRollout(vit, start_layer=layer).attribute(images)


def test_rollout_of_a_model_without_logits(vit, images):
    assert_close(AttentionRollout(vit.vit).relevance(images), AttentionRollout(vit).relevance(images))


def spoil(output):
    """The same numbers, with a gradient that is infinite."""
    hidden, *rest = output if isinstance(output, tuple) else (output,)
    hidden.register_hook(lambda grad: grad / 0)
    return (hidden, *rest) if isinstance(output, tuple) else hidden


@pytest.mark.parametrize("name", PUBLIC)
def test_tokens_first(name, images):
    options = {"prefix": 1, "read": lambda tokens: tokens[:, 0]}
    usual, tokens_first = (TorchEncoder(**options, batch_first=batch_first).eval() for batch_first in (True, False))
    tokens_first.load_state_dict(usual.state_dict())
    expected = METHODS[name].make(usual).relevance(images, 3)
    assert_close(METHODS[name].make(tokens_first).relevance(images, 3), expected)
