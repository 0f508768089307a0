"""Meeting a model's attention: which layers are met, and what is said where that cannot be."""

import copy
import threading

import pytest
import torch
import torch.nn.functional as F
import transformers
from oracle import Dense, attention_rollout, gradient_rollout
from torch import nn
from torch.testing import assert_close
from transformers import Dinov2Config, Dinov2ForImageClassification, ResNetConfig, ResNetForImageClassification

from captum_gmar import AttentionRollout, GMARAttribution, GradientRollout, LeGrad, RawAttention


class TimmLike(nn.Module):
    """timm's way to call: one linear layer for query, key and value, fused attention, no config."""

    def __init__(self, layers: int = 2, prefix: int = 1) -> None:
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


def dense_rollout(model, images, target):
    """GMAR of a TimmLike model, with softmax and gradients written out."""
    kept = []

    def attend(q, k, v):
        kept.append((q @ k.mT / 12**0.5).softmax(-1))
        return kept[-1] @ v

    model.attend = attend
    gradients = torch.autograd.grad(model(images)[:, target].sum(), kept)
    del model.attend
    rollout = torch.eye(kept[0].shape[-1])
    for attention, gradient in zip(kept, gradients, strict=True):
        weights = gradient.abs().sum((-1, -2), keepdim=True)
        fused = (weights / weights.sum(1, keepdim=True) * attention).sum(1)
        rollout = (fused + torch.eye(fused.shape[-1])) / 2 @ rollout
    return rollout[:, 0, -16:].detach()


@pytest.mark.parametrize("prefix", [1, 2, 5])
def test_a_model_without_config(images, prefix):
    model = TimmLike(prefix=prefix)
    relevance = GMARAttribution(model).relevance(images, 3)
    assert_close(relevance.flatten(1), dense_rollout(model, images, 3), rtol=1e-5, atol=1e-7)


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


def test_a_user_s_own_module_around_a_vit(vit, images):
    assert_close(GMARAttribution(Wrapped(vit)).relevance(images, 3), GMARAttribution(vit).relevance(images, 3))


def test_other_attention_passes_by(vit, images):
    """A text tower's attention, say: it is neither counted nor changed."""

    def forward(inputs):
        text = torch.ones(len(inputs), 2, 5, 8)
        return vit(inputs).logits * F.scaled_dot_product_attention(text, text, text, is_causal=True).mean()

    importance = GMARAttribution(vit, forward_func=forward).head_importance(images, 3)
    assert_close(importance, GMARAttribution(vit).head_importance(images, 3))


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


@pytest.mark.filterwarnings("ignore")  # tracing warns of the model's own checks
def test_traced_models(vit, images):
    vit.requires_grad_(False)
    traced = torch.jit.trace(lambda inputs: vit(inputs).logits, images)
    model = nn.Sequential(nn.Conv2d(3, 3, 8, 8, bias=False))
    with pytest.raises(RuntimeError, match=r"No attention was met in Sequential: it never calls"):
        GMARAttribution(model, forward_func=lambda inputs: traced(inputs)).attribute(images, 3)
    module = torch.jit.trace(Wrapped(vit), images)
    model.append(module)
    with pytest.raises(RuntimeError, match="it is traced or exported"):
        GMARAttribution(model, forward_func=lambda inputs: module(inputs)).attribute(images, 3)


class Encoder(TimmLike):
    """A model of torch's own layers."""

    def __init__(self, **options) -> None:
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


class WithWeights(TimmLike):
    """Asks torch's attention for its weights."""

    def __init__(self, computes) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(24, 2, batch_first=True)
        self.computes, self.weights = computes, None

    def forward(self, inputs):
        tokens = self.tokens(inputs)
        attended, self.weights = self.attention(tokens, tokens, tokens)
        scale = 1 + self.weights.sum() if self.computes else 1
        return self.head((tokens + attended)[:, 0]) * scale


def test_weights_of_multihead_attention(images):
    model = WithWeights(computes=False)
    before = model(images), model.weights
    GMARAttribution(model).attribute(images, 3)
    assert_close(model.weights.detach(), before[1].detach())
    model.computes = True
    AttentionRollout(model).attribute(images)
    with pytest.raises(RuntimeError, match=r"computes with the attention weights that nn\.MultiheadAttention returns"):
        GMARAttribution(model).attribute(images, 3)


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


def test_a_model_without_patches(images):
    model = ResNetForImageClassification(ResNetConfig(embedding_size=8, hidden_sizes=[8], depths=[1])).eval()
    with pytest.raises(ValueError, match="Found no patch size in ResNetForImageClassification"):
        GMARAttribution(model).attribute(images, 1)


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


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("Pvt", {"hidden_sizes": [8, 8, 8, 8], "depths": [1] * 4, "num_attention_heads": [1] * 4}),
        ("Hiera", {"embed_dim": 8, "depths": [1, 1, 1, 1], "num_heads": [1, 1, 1, 1], "image_size": [32, 32]}),
    ],
)
@pytest.mark.parametrize("make", [GMARAttribution, AttentionRollout])
def test_models_that_reduce_their_keys_or_queries(images, name, options, make):
    config = getattr(transformers, f"{name}Config")(**{"image_size": 32, **options})
    model = getattr(transformers, f"{name}ForImageClassification")(config).eval()
    with pytest.raises((RuntimeError, ValueError), match="queries and keys are not of the same"):
        make(model).attribute(images, 1)


def test_attention_that_is_not_over_the_grid(images):
    class Halved(TimmLike):
        def tokens(self, inputs):
            return super().tokens(inputs)[:, :10]

    with pytest.raises(
        RuntimeError, match=r"Expected attention over 16 patch tokens, a 4x4 grid, of 4 examples, but Halved"
    ):
        GMARAttribution(Halved()).attribute(images, 3)


def test_a_wrong_grid(vit, images):
    """A patch size that is not the model's must not pass with the surplus taken for prefix tokens."""
    vit.config.patch_size = 16
    with pytest.raises(RuntimeError, match=r"Expected attention over 4 patch tokens, a 2x2 grid.*\(4, 3, 17, 8\)"):
        GMARAttribution(vit).attribute(images, 3)


def test_tokens_dropped_on_the_way(images):
    class Pruned(TimmLike):
        def encode(self, inputs):
            tokens = super().encode(inputs)[:, None, :9]
            return self.attend(tokens, tokens, tokens)[:, 0]

    with pytest.raises(
        RuntimeError, match=r"over 17 tokens, but after layer 1 came one with queries of shape \(4, 1, 9, 24\)"
    ):
        GMARAttribution(Pruned()).attribute(images, 3)


def test_no_logits(vit, images):
    with pytest.raises(TypeError, match=r"output with a `logits` tensor. Got BaseModelOutputWithPooling instead"):
        GMARAttribution(vit.vit).attribute(images, 3)
    with pytest.raises(TypeError, match=r"Got dict instead. Pass forward_func="):
        GMARAttribution(Wrapped(vit, lambda logits: {"scores": logits})).attribute(images, 3)


@pytest.mark.parametrize("change", [torch.Tensor.detach, lambda logits: torch.zeros_like(logits)])
def test_a_target_that_depends_on_nothing(vit, images, change):
    with pytest.raises(RuntimeError, match="Attention layer 2 got no gradient: the target does not depend on it"):
        GMARAttribution(Wrapped(vit, change)).attribute(images, 3)


def test_a_layer_that_is_cut_off(images):
    class CutOff(TimmLike):
        def attend(self, q, k, v):
            return super().attend(q, k, v).detach()

    with pytest.raises(RuntimeError, match="Expected attention layer 1 to depend on layer 0"):
        GMARAttribution(CutOff()).attribute(images, 3)


def test_a_last_layer_that_nobody_reads(images):
    class Unread(TimmLike):
        def encode(self, inputs):
            tokens = super().encode(inputs)
            self.attend(tokens[:, None], tokens[:, None], tokens[:, None])
            return tokens

    with pytest.raises(RuntimeError, match="Attention layer 2 got no gradient: the target does not depend on it"):
        GMARAttribution(Unread()).attribute(images, 3)


def test_layers_side_by_side(images):
    class Parallel(TimmLike):
        def forward(self, inputs):
            first, second = (
                qkv(self.tokens(inputs)).unflatten(-1, (3, 2, 12)).permute(2, 0, 3, 1, 4) for qkv in self.qkv
            )
            return self.head((self.attend(*first) + self.attend(*second)).sum((1, 2)).repeat(1, 2))

    with pytest.raises(RuntimeError, match="Expected attention layer 1 to depend on layer 0"):
        GMARAttribution(Parallel()).attribute(images, 3)


def test_a_model_that_runs_twice(make_vit, images):
    first, second = make_vit(), make_vit(seed=1)
    message = r"Expected attention layer 3 to depend on layer 2.*forward_func must run one model, and run it once"
    for forward in (lambda x: first(x).logits + first(x.flip(-1)).logits, lambda x: first(x).logits + second(x).logits):
        with pytest.raises(RuntimeError, match=message):
            GMARAttribution(first, forward_func=forward).attribute(images, 3)


def test_no_grad_in_the_model(vit, images):
    class Frozen(Wrapped):
        def forward(self, inputs):
            with torch.no_grad():
                return super().forward(inputs)

    with pytest.raises(RuntimeError, match="Attention layer 0 runs without gradient"):
        GMARAttribution(Frozen(vit)).attribute(images, 3)


def test_dropout(make_vit, images):
    model = make_vit(attention_probs_dropout_prob=0.1)
    GMARAttribution(model).attribute(images, 3)
    with pytest.raises(RuntimeError, match=r"without dropout but got dropout of p=0.1.*Call model.eval\(\)"):
        GMARAttribution(model.train()).attribute(images, 3)


def test_hidden_dropout(make_vit, images):
    model = make_vit(hidden_dropout_prob=0.1, attention_probs_dropout_prob=0.0)
    GMARAttribution(model).attribute(images, 3)
    with pytest.raises(RuntimeError, match=r"without dropout but got dropout of p=0.1"):
        AttentionRollout(model.train()).attribute(images)


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
    message = f"Expected the target to read token 0 after the last layer, as .*, but it reads {reads}. Say with tokens="
    for method in (GMARAttribution, GradientRollout):
        with pytest.raises(RuntimeError, match=message):
            method(model).attribute(images, 3)
        assert method(model, tokens=tokens).attribute(images, 3).ne(0).any()


def test_half_of_what_is_expected_to_be_read(images):
    model = Dinov2ForImageClassification(Dinov2Config(hidden_size=24, num_attention_heads=2, image_size=32)).eval()
    with pytest.raises(RuntimeError, match=r"to read token 0 and the patches after .*, but it reads token 0\. Say"):
        GMARAttribution(model, forward_func=lambda x: model.dinov2(x).pooler_output).attribute(images, 3)


def test_start_layers_that_the_model_does_not_have(vit, images):
    for layer in (3, -4):
        with pytest.raises(ValueError, match=rf"start_layer must be one of the model's 3 layers. Got {layer} instead"):
            GMARAttribution(vit, start_layer=layer).attribute(images, 3)
        with pytest.raises(ValueError, match="start_layer must be one of the model's 3 layers"):
            AttentionRollout(vit, start_layer=layer).attribute(images)


def test_layers_before_the_start_layer_are_not_met_again(vit, images):
    """Backward ends at the start layer: gradients that would be wrong below it do no harm."""
    expected = GMARAttribution(vit, start_layer=1).relevance(images, 3)
    block = next(m for m in vit.modules() if isinstance(m, nn.ModuleList))[0]
    block.register_forward_hook(lambda module, args, output: spoil(output))
    assert_close(GMARAttribution(vit, start_layer=1).relevance(images, 3), expected, rtol=0, atol=0)
    with pytest.raises(FloatingPointError, match="The gradient at attention layer 0 must be finite"):
        GMARAttribution(vit).attribute(images, 3)


def test_rollout_of_a_model_without_logits(vit, images):
    assert_close(AttentionRollout(vit.vit).relevance(images), AttentionRollout(vit).relevance(images))


def test_data_parallel(vit, images):
    """On a machine without GPU the wrapper only hands on; what is wrapped is what runs everywhere."""
    method = GMARAttribution(nn.DataParallel(vit))
    assert method.forward_func.run is vit
    assert_close(method.relevance(images, 3), GMARAttribution(vit).relevance(images, 3), rtol=0, atol=0)


def test_adapters(vit, images):
    """As peft writes them: a layer around the model's own, of two small trained matrices."""

    class LoRA(nn.Module):
        def __init__(self, base_layer):
            super().__init__()
            self.base_layer = base_layer.requires_grad_(False)
            self.lora_a = nn.Linear(base_layer.in_features, 2, bias=False)
            self.lora_b = nn.Linear(2, base_layer.out_features, bias=False)

        def forward(self, inputs):
            return self.base_layer(inputs) + self.lora_b(self.lora_a(inputs))

    merged = copy.deepcopy(vit)
    for name, module in list(vit.named_modules()):
        if isinstance(module, nn.Linear):
            parent, _, own = name.rpartition(".")
            adapted = LoRA(module)
            setattr(vit.get_submodule(parent), own, adapted)
            merged.get_submodule(name).weight.data += adapted.lora_b.weight.detach() @ adapted.lora_a.weight.detach()
    assert_close(GMARAttribution(vit).relevance(images, 3), GMARAttribution(merged).relevance(images, 3))


def test_layers_that_do_not_let_gradients_pass(images):
    """As layers quantised for speed on processors do not."""

    class Quantised(TimmLike):
        def encode(self, inputs):
            return super().encode(inputs).detach().requires_grad_()

    with pytest.raises(RuntimeError, match="Attention layer 1 got no gradient: the target does not depend on it"):
        GMARAttribution(Quantised()).attribute(images, 3)


class TestLayersApart:
    def test_hooks_are_gone(self, vit, images):
        def hooks(model):
            return [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in model.modules()]

        before = hooks(vit)
        LeGrad(vit).attribute(images, 3)
        with pytest.raises(ValueError, match="target must be from 0 to"):
            LeGrad(vit).attribute(images, 10)
        with pytest.raises(ValueError, match="doesn't match model"):
            LeGrad(vit).attribute(images[..., :24], 3)
        assert hooks(vit) == before

    def test_layers_that_cannot_be_told(self, images):
        with pytest.raises(ValueError, match=r"Expected one nn.ModuleList or nn.Sequential of .*layers of one class"):
            LeGrad(TimmLike()).attribute(images, 3)

    def test_other_threads_see_nothing(self, vit, images):
        """While one thread takes the layers apart, the model is whole in another."""
        expected, found = vit(images).logits, []

        def forward(pixels):
            thread = threading.Thread(target=lambda: found.append(vit(pixels).logits))
            thread.start()
            thread.join()
            return vit(pixels).logits

        LeGrad(vit, forward_func=forward).attribute(images, 3)
        assert_close(found[0], expected, rtol=0, atol=0)


@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing_enable.*:FutureWarning")
def test_gradient_checkpointing(vit, images):
    expected = GMARAttribution(vit).attribute(images, 3)
    vit.gradient_checkpointing_enable()
    assert_close(GMARAttribution(vit).attribute(images, 3), expected)
    with pytest.raises(RuntimeError, match="without gradient checkpointing"):
        GMARAttribution(vit.train()).attribute(images, 3)


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_a_gradient_that_is_not_finite_names_its_layer(vit, images, layer):
    block = next(m for m in vit.modules() if isinstance(m, nn.ModuleList))[layer]
    block.register_forward_hook(lambda module, args, output: spoil(output))
    with pytest.raises(FloatingPointError, match=f"The gradient at attention layer {layer} must be finite"):
        GMARAttribution(vit).attribute(images, 3)


def spoil(output):
    """The same numbers, with a gradient that is infinite."""
    hidden, *rest = output if isinstance(output, tuple) else (output,)
    hidden.register_hook(lambda grad: grad / 0)
    return (hidden, *rest) if isinstance(output, tuple) else hidden


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
