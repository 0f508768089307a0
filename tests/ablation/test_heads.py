"""Silent heads against zero inputs of the model's output projections, for every family."""

import copy

import pytest
import torch
import torch.nn.functional as F
from families import FAMILIES, TorchEncoder, image_embedding, make, with_text
from field_families import swin
from snapshots import state
from torch import nn
from torch.testing import assert_close

from captum_gmar import AttentionRollout, GMARAttribution, GradientRollout, record_attention
from captum_gmar.ablation import TokenRemoval, ablate_heads, mean_head_outputs
from captum_gmar.attr.captum_methods import IntegratedGradients
from captum_gmar.metrics import deletion, random_map

HEADS, SIZE = 3, 8  # of the families' layers
# Ends of the output projections' names.
PROJECTIONS = ("attention.output.dense", "o_proj", "out_proj", ".proj")
NAMES = [name for name in FAMILIES if not name.startswith("timm ")]


def torch_encoder(batch_first=True):
    return TorchEncoder(prefix=1, read=lambda tokens: tokens[:, 0], batch_first=batch_first)


def logits(model, images):
    output = model(images)
    return output if isinstance(output, torch.Tensor) else output.logits


def projections(model):
    """Return the output projections of the image tower's layers in order."""
    found = [
        module
        for name, module in model.named_modules()
        if name.endswith(PROJECTIONS) and isinstance(module, nn.Linear) and not name.startswith("text_model")
    ]
    return [module for module in found if "probe" not in str(module)][:3]


class Pruned(nn.Module):
    """Two layers of two and three heads."""

    def __init__(self):
        super().__init__()
        self.patch_embed, self.cls_token = nn.Conv2d(3, 24, 8, 8), nn.Parameter(torch.randn(1, 1, 24))

    def forward(self, inputs):
        patches = self.patch_embed(inputs).flatten(2).mT
        tokens = torch.cat([self.cls_token.expand(len(inputs), -1, -1), patches], 1)
        for heads in (2, 3):
            query = tokens.unflatten(-1, (heads, -1)).transpose(1, 2)
            tokens = tokens + F.scaled_dot_product_attention(query, query, query).transpose(1, 2).flatten(2)
        return tokens[:, 0]


class Masked:
    """Hooks that multiply the output projections' inputs by a mask (layers, heads) and add a constant."""

    def __init__(self, model, mask, added=None):
        self.handles = [
            module.register_forward_pre_hook(self.hook(mask[layer], None if added is None else added[layer]))
            for layer, module in enumerate(projections(model))
        ]
        assert len(self.handles) == 3

    def hook(self, mask, added):
        def apply(module, args):
            masked = args[0] * mask.repeat_interleave(SIZE)
            return masked if added is None else masked + added.flatten()

        return apply

    def __enter__(self):
        return self

    def __exit__(self, *error):
        for handle in self.handles:
            handle.remove()


def mask_of(heads):
    mask = torch.ones(3, HEADS)
    for layer, numbers in heads.items():
        mask[layer, list(numbers)] = 0
    return mask


CHOSEN = {0: [1], 2: [0, 2]}
ALL = dict.fromkeys(range(3), range(HEADS))


def silence(projections):
    """Set the weights of the chosen heads to zero."""
    for layer, heads in CHOSEN.items():
        projections[layer].weight.data.unflatten(1, (HEADS, SIZE))[:, heads] = 0


@pytest.mark.parametrize(
    ("name", "heads", "tolerance"),
    [
        *((name, CHOSEN, 1e-4) for name in NAMES),
        *((name, ALL, 0) for name in ("ViT", "DeiT with teacher", "timm-like, avg")),
    ],
)
@pytest.mark.parametrize("grad", [False, True])
def test_a_silent_head_s_slice_is_zero(name, heads, tolerance, grad, images):
    model, forward = make(name)
    with torch.set_grad_enabled(grad):
        with ablate_heads(model, heads):
            found = forward(images)
        with Masked(model, mask_of(heads)):
            expected = forward(images)
        assert_close(found, expected, rtol=tolerance, atol=tolerance)
        assert (found - forward(images)).abs().max() > 1e-3


@pytest.mark.parametrize("name", ["ViT", "CLIP", "DINOv2", "BEiT"])
def test_the_mean_in_place_of_a_head(name, images):
    model, forward = make(name)
    fill = mean_head_outputs(model, images, forward)
    assert fill.shape == (3, HEADS, SIZE)
    mask = mask_of(CHOSEN)
    with ablate_heads(model, CHOSEN, fill):
        found = forward(images)
    with Masked(model, mask, fill * (1 - mask)[..., None]):
        assert_close(found, forward(images), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_mean_outputs_are_what_the_projection_reads(make_vit, images, implementation):
    vit, projected = make_vit(attn_implementation=implementation), []
    handles = [p.register_forward_pre_hook(lambda module, args: projected.append(args[0])) for p in projections(vit)]
    vit(images)
    for handle in handles:
        handle.remove()
    expected = torch.stack([inputs.mean((0, 1)).unflatten(0, (HEADS, SIZE)) for inputs in projected]).detach()
    found = mean_head_outputs(vit, images)
    assert_close(found, expected)
    assert not found.requires_grad


@pytest.mark.parametrize("heads", [{}, {1: []}])
@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_no_heads_change_no_bit(make_vit, images, heads, implementation):
    vit = make_vit(attn_implementation=implementation)
    with ablate_heads(vit, heads):
        assert torch.equal(vit(images).logits, vit(images).logits)
        found = vit(images).logits
    assert torch.equal(found, vit(images).logits)


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("weights", [False, True])
def test_torch_s_own_layers(images, batch_first, weights, monkeypatch):
    torch.manual_seed(0)
    model = torch_encoder(batch_first).eval()
    if weights:
        own = nn.MultiheadAttention.forward
        monkeypatch.setattr(
            nn.MultiheadAttention, "forward", lambda *args, **kw: own(*args, **kw | {"need_weights": True})
        )
    silent = copy.deepcopy(model)
    silence([layer.self_attn.out_proj for layer in silent.encoder.layers])
    with ablate_heads(model, CHOSEN):
        found = model(images)
        with torch.no_grad():
            assert_close(model(images), found)
    assert_close(found, silent(images))
    assert (found - model(images)).abs().max() > 1e-3
    assert mean_head_outputs(model, images).shape == (3, HEADS, SIZE)


class OneLayer(nn.Module):
    """One layer whose query heads share a number of key heads, after attention to another tensor."""

    def __init__(self, heads, key_heads, other=None):
        super().__init__()
        torch.manual_seed(0)
        self.patch_embed, self.head = nn.Conv2d(3, 24, 8, 8), nn.Linear(24, 10)
        self.heads, self.key_heads, self.other = heads, key_heads, other

    def forward(self, inputs, silent=()):
        tokens = self.patch_embed(inputs).flatten(2).mT
        added = 0 if self.other is None else F.scaled_dot_product_attention(*[self.other] * 3).mean()
        query = tokens.unflatten(-1, (self.heads, -1)).transpose(1, 2)
        key = query[:, : self.key_heads]
        grouped = {"enable_gqa": True} if self.key_heads < self.heads else {}
        attended = F.scaled_dot_product_attention(query=query, key=key, value=key, **grouped)
        attended[:, list(silent)] = 0
        return self.head((tokens + attended.transpose(1, 2).flatten(2)).mean(1)) + added


def test_grouped_heads(images):
    model = OneLayer(4, 2)
    with ablate_heads(model, {0: [3]}):
        assert_close(model(images), model(images, silent=[3]))
    message = r"among the 4 heads of layer 0, but got 4"
    with pytest.raises(ValueError, match=message), ablate_heads(model, {0: [4]}):
        model(images)


@pytest.mark.parametrize("shape", [(8, 2, 16, 12), (4, 2, 5, 12), (4, 16, 12)])
def test_other_attention_is_unchanged(images, shape):
    """The other attention has other examples, other tokens or no heads."""
    model = OneLayer(2, 2, torch.randn(shape))
    with ablate_heads(model, {0: [1]}):
        found = model(images)
    assert_close(found, model(images, silent=[1]))


def test_gradients(vit, images):
    """Gradients of weights and pixels equal those of a model with masked projection inputs."""
    found, expected = images.clone().requires_grad_(), images.clone().requires_grad_()
    with ablate_heads(vit, CHOSEN):
        vit(found).logits[:, 3].sum().backward()
    weights = {name: parameter.grad for name, parameter in vit.named_parameters()}
    vit.zero_grad()
    with Masked(vit, mask_of(CHOSEN)):
        vit(expected).logits[:, 3].sum().backward()
    assert_close(found.grad, expected.grad, rtol=1e-4, atol=1e-6)
    for name, parameter in vit.named_parameters():
        assert_close(weights[name], parameter.grad, rtol=1e-3, atol=1e-5)


def test_nested_blocks_and_several_runs(vit, images):
    with ablate_heads(vit, CHOSEN):
        expected = vit(images).logits
        assert torch.equal(vit(images).logits, expected)
        assert_close(vit(images[:2]).logits, expected[:2])
    with ablate_heads(vit, {0: [1]}), ablate_heads(vit, {2: [0]}), ablate_heads(vit, {2: [2]}):
        assert_close(vit(images).logits, expected, rtol=0, atol=0)


def test_other_models_in_the_block(make_vit, images):
    vit, other = make_vit(), make_vit(seed=1)
    expected = other(images).logits, GMARAttribution(other).relevance(images, 3)
    with ablate_heads(vit, CHOSEN):
        vit(images)
        assert torch.equal(other(images).logits, expected[0])
        assert torch.equal(GMARAttribution(other).relevance(images, 3), expected[1])


@pytest.mark.parametrize("text_first", [False, True])
@pytest.mark.parametrize("tokens", [16, 17])
def test_a_text_tower(text_first, tokens, images):
    """The text tower has as many sentences as images, and as many tokens as patches or image tokens."""
    torch.manual_seed(0)
    model = with_text("CLIPModel").eval()
    ids = torch.randint(3, 90, (4, tokens))

    def scores(images):
        image = image_embedding(model)
        text = model.get_text_features(ids) if text_first else None
        embedded = image(images)
        text = model.get_text_features(ids) if text is None else text
        return embedded, getattr(text, "pooler_output", text)

    _, text = scores(images)
    with ablate_heads(model, CHOSEN):
        alone = image_embedding(model)(images)
        for _ in range(2):
            found = scores(images)
            assert_close(found[0], alone)
            assert_close(found[1], text)


class TestExplaining:
    """Attribution methods in the block explain the model without the heads."""

    @pytest.fixture
    def silent(self, vit):
        """Return the same model with zero weights for the heads."""
        model = copy.deepcopy(vit)
        silence(projections(model))
        return model

    @pytest.mark.parametrize("method", [AttentionRollout, GradientRollout, GMARAttribution, IntegratedGradients])
    def test_methods(self, vit, silent, images, method):
        with ablate_heads(vit, CHOSEN):
            found = method(vit).attribute(images, 3)
        assert_close(found, method(silent).attribute(images, 3), rtol=1e-3, atol=1e-6)

    def test_within_the_function_that_is_explained(self, vit, silent, images):
        def forward(images):
            with ablate_heads(vit, CHOSEN):
                return vit(images).logits

        found = GMARAttribution(vit, forward_func=forward).attribute(images, 3)
        assert_close(found, GMARAttribution(silent).attribute(images, 3), rtol=1e-3, atol=1e-6)

    def test_gmar_gives_silent_heads_no_weight(self, vit, images):
        torch.manual_seed(0)
        for model in (vit, torch_encoder().eval()):
            with ablate_heads(model, CHOSEN):
                importance = GMARAttribution(model).head_importance(images, 3)
            assert torch.equal(importance > 0, mask_of(CHOSEN).bool().expand(4, -1, -1))

    def test_token_removal(self, vit, silent, images):
        options = {"attributions": random_map(images, patch_size=8), "target": 3, "patch_size": 8, "steps": 4}
        with ablate_heads(vit, CHOSEN):
            found = deletion(lambda x: vit(x).logits, images, removal=TokenRemoval(vit), **options)
        expected = deletion(lambda x: silent(x).logits, images, removal=TokenRemoval(silent), **options)
        assert_close(found.curve, expected.curve, rtol=1e-4, atol=1e-5)

    def test_recording_is_refused(self, vit, images):
        with ablate_heads(vit, CHOSEN):
            vit(images)
            with pytest.raises(RuntimeError, match="eager attention cannot be combined with sdpa"):
                record_attention(vit, images, 3)


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_the_model_is_left_as_it_was(make_vit, images, implementation):
    vit = make_vit(attn_implementation=implementation).train()
    before = state(vit)
    with ablate_heads(vit, CHOSEN):
        vit(images)
    assert state(vit) == before
    with pytest.raises(ZeroDivisionError), ablate_heads(vit, CHOSEN):
        vit(images).logits[0, 1 // 0]
    with pytest.raises(ValueError, match="doesn't match model"), ablate_heads(vit, CHOSEN):
        vit(images[..., :24])
    assert state(vit) == before
    mean_head_outputs(vit, images)
    assert state(vit) == before


@pytest.mark.filterwarnings("ignore")  # dynamo's own
def test_compiled_models(vit, images):
    with ablate_heads(vit, CHOSEN):
        expected = vit(images).logits
    compiled = torch.compile(vit, backend=lambda graph, inputs: graph.forward)
    compiled(images)
    with ablate_heads(compiled, CHOSEN):
        assert_close(compiled(images).logits, expected)


def test_half_precision(vit, images):
    fill = mean_head_outputs(vit, images)
    half = copy.deepcopy(vit).bfloat16()
    with ablate_heads(half, CHOSEN, fill), ablate_heads(vit, CHOSEN, fill):
        found = half(images.bfloat16()).logits
        assert found.dtype == torch.bfloat16
        assert_close(found.float(), vit(images).logits, rtol=0.1, atol=0.2)


class TestWrongArguments:
    @pytest.mark.parametrize(
        ("heads", "error", "message"),
        [
            ([(0, 1)], TypeError, r"heads must be a dictionary of layer to list of heads.* but got \[\(0, 1\)\]"),
            ({0: 1}, TypeError, r"heads must be a dictionary of layer to list of heads.* but got \{0: 1\}"),
            ({0: [1.0]}, ValueError, r"Layers and heads must be integers, zero or more, but got 1\.0"),
            ({0: [True]}, ValueError, r"but got True"),
            ({0: [-1]}, ValueError, r"but got -1"),
            ({-1: [0]}, ValueError, r"but got -1"),
            ({"0": [0]}, ValueError, r"but got '0'"),
            ({3: [0]}, ValueError, r"among the model's 3 attention layers, but got 3"),
            ({0: [3]}, ValueError, r"among the 3 heads of a layer, but got 3"),
        ],
    )
    def test_heads(self, vit, heads, error, message):
        """Errors come before the model runs."""
        with pytest.raises(error, match=message), ablate_heads(vit, heads):
            raise AssertionError

    def test_heads_of_a_model_that_tells_nothing(self, images):
        model, _ = make("timm-like, avg")
        message = r"among the 3 heads of layer 1, but got 7"
        with pytest.raises(ValueError, match=message), ablate_heads(model, {1: [7]}):
            model(images)
        with pytest.raises(ValueError, match=r"3 attention layers, but got 5"), ablate_heads(model, {5: [0]}):
            model(images)

    @pytest.mark.parametrize(
        ("fill", "error", "message"),
        [
            ("mean", TypeError, r"fill must be a tensor \(layers, heads, head dimension\), but got str"),
            (torch.zeros(3, 8), ValueError, r"up to layer 2, but got torch\.float32 of shape \(3, 8\)"),
            (torch.zeros(2, 3, 8), ValueError, r"up to layer 2, but got torch\.float32 of shape \(2, 3, 8\)"),
            (torch.zeros(3, 3, 8).long(), ValueError, r"up to layer 2, but got torch\.int64"),
            (torch.zeros(3, 3, 9), ValueError, r"fill must be of shape \(layers, 3, 8\).* but got \(3, 3, 9\)"),
            (torch.zeros(3, 1, 8), ValueError, r"fill must be of shape \(layers, 3, 8\).* but got \(3, 1, 8\)"),
        ],
    )
    def test_fill(self, vit, images, fill, error, message):
        with pytest.raises(error, match=message), ablate_heads(vit, CHOSEN, fill):
            vit(images)

    def test_models(self, vit, images):
        message = r"model must be .*torch\.nn\.Module, but got function"
        with pytest.raises(TypeError, match=message), ablate_heads(lambda x: x, {0: [0]}):
            raise AssertionError
        model = swin("Swin", image_size=32, patch_size=8, depths=[1], num_heads=[2], window_size=2).eval()
        with (
            pytest.raises(RuntimeError, match=r"SwinForImage.* must attend over its patch grid"),
            ablate_heads(model, {0: [0]}),
        ):
            model(images)
        with pytest.raises(RuntimeError, match=r"ViTFor.* must attend over its patch grid in this block"):
            mean_head_outputs(vit, images, forward_func=lambda images: images)

    def test_a_block_in_which_nothing_runs(self, vit):
        with pytest.raises(RuntimeError, match=r"ViTFor.* must attend over its patch grid"), ablate_heads(vit, CHOSEN):
            pass

    def test_gradient_checkpointing(self, vit):
        vit.train().vit.gradient_checkpointing = True
        with pytest.raises(RuntimeError, match="without gradient checkpointing"), ablate_heads(vit, CHOSEN):
            raise AssertionError

    def test_inputs_of_the_mean(self, vit):
        with pytest.raises(ValueError, match=r"floating-point pixel values of shape"):
            mean_head_outputs(vit, torch.zeros(3, 32, 32))

    def test_the_mean_of_a_model_with_pruned_heads(self, images):
        with pytest.raises(ValueError, match=r"as many heads in every layer.* shape \(2, 12\), \(3, 8\)"):
            mean_head_outputs(Pruned(), images)
