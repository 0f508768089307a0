"""LibraGrad: complete gradients at every layer of every family, and an unchanged model."""

import threading

import pytest
import torch
import torch.nn.functional as F
import transformers
from families import FAMILIES, OwnHead, TorchEncoder, hugging_face, make
from snapshots import state
from torch import nn
from torch.testing import assert_close
from transformers.activations import ACT2FN

from captum_gmar.engine.hidden_states import registry
from captum_gmar.engine.hidden_states.libragrad import libra_gradients
from captum_gmar.engine.hidden_states.registry import register_rule
from captum_gmar.engine.models.layers import transformer_layers
from captum_gmar.engine.models.patch_grid import Logits

# Names of parameters that a model adds to its tokens.
ADDED = ("bias", "cls_token", "class_embedding", "pos", "reg_token", "register", "dist")


class Norm(nn.Module):
    """RMSNorm as in transformers."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(24))

    def forward(self, hidden_states):
        dtype = hidden_states.dtype
        hidden_states = hidden_states.to(torch.promote_types(dtype, torch.float32))
        variance = hidden_states.pow(2).mean(-1, keepdim=True)
        return self.weight * (hidden_states * torch.rsqrt(variance + 1e-6)).to(dtype)


class HandWrittenLayerNorm(Norm):
    def forward(self, x):
        centred = x - x.mean(-1, keepdim=True)
        return self.weight * centred / torch.sqrt((centred**2).mean(-1, keepdim=True) + 1e-6)


class GatedMLP(nn.Module):
    """MLP of EVA and others: SiLU of one path times another."""

    def __init__(self):
        super().__init__()
        self.both, self.down = nn.Linear(24, 64), nn.Linear(32, 24)

    def forward(self, x):
        gate, up = self.both(x).chunk(2, -1)
        return self.down(F.silu(gate) * up)


class HandWrittenLayer(nn.Module):
    """Attention by matrix products and softmax, with talking heads."""

    def __init__(self, norm, mlp):
        super().__init__()
        self.norm, self.mlp_norm, self.mlp = norm(), norm(), mlp
        self.qkv, self.talk, self.proj = nn.Linear(24, 72), nn.Linear(3, 3), nn.Linear(24, 24)

    def forward(self, tokens):
        query, key, value = self.qkv(self.norm(tokens)).unflatten(-1, (3, 3, 8)).permute(2, 0, 3, 1, 4)
        attention = (query @ key.transpose(-2, -1) * 8**-0.5).softmax(-1)
        attention = self.talk(attention.movedim(1, -1)).movedim(-1, 1)
        tokens = tokens + self.proj((attention @ value).transpose(1, 2).flatten(2))
        return tokens + self.mlp(self.mlp_norm(tokens))


class HandWritten(nn.Module):
    def __init__(self, norm=Norm, mlp=None):
        super().__init__()
        self.patch_embed, self.head = nn.Conv2d(3, 24, 8, 8), nn.Linear(24, 10)
        self.blocks = nn.ModuleList(HandWrittenLayer(norm, mlp or GatedMLP()) for _ in range(3))

    def forward(self, pixel_values):
        tokens = self.patch_embed(pixel_values).flatten(2).mT
        for block in self.blocks:
            tokens = block(tokens)
        return self.head(tokens.mean(1))


class QuickGELU(nn.Module):
    def forward(self, x):
        return x * torch.sigmoid(1.702 * x)


def activated(activation):
    return lambda: HandWritten(mlp=nn.Sequential(nn.Linear(24, 24), activation, nn.Linear(24, 24)))


OTHERS = {
    "torch's encoder": lambda: TorchEncoder(activation="gelu", norm_first=True),
    "torch's encoder, norm last": lambda: TorchEncoder(activation="gelu"),
    "ViT, eager": lambda: hugging_face("ViTForImageClassification", attn_implementation="eager"),
    "DINOv2, SwiGLU": lambda: hugging_face("Dinov2ForImageClassification", use_swiglu_ffn=True),
    "DINOv3, gated": lambda: OwnHead(hugging_face("DINOv3ViTModel", use_gated_mlp=True, hidden_act="silu")),
    "RMSNorm by hand": HandWritten,
    "LayerNorm by hand": lambda: HandWritten(HandWrittenLayerNorm),
    "RMSNorm": lambda: HandWritten(lambda: nn.RMSNorm(24)),
    "no weights in its norms": lambda: HandWritten(lambda: nn.LayerNorm(24, elementwise_affine=False)),
    "quick GELU by hand": activated(QuickGELU()),
    "GLU": lambda: HandWritten(mlp=nn.Sequential(nn.Linear(24, 48), nn.GLU(), nn.Linear(24, 24))),
    "square": lambda: HandWritten(mlp=nn.Sequential(nn.Linear(24, 24), ACT2FN["relu2"], nn.Linear(24, 24))),
    **{
        name: lambda name=name: activated(ACT2FN[name])()
        for name in ("gelu_new", "gelu_python", "gelu_fast", "quick_gelu", "gelu_pytorch_tanh", "silu", "mish", "relu")
    },
    "hardswish": activated(nn.Hardswish()),
}


def make_ready(name, dtype=torch.float64):
    """Return a model whose added parameters require grad, and its forward function."""
    if name in FAMILIES:
        model, forward = make(name)
    else:
        torch.manual_seed(0)
        model = OTHERS[name]().eval()
        for parameter in model.parameters():
            nn.init.normal_(parameter, std=0.3)
        forward = Logits(model)
    model.to(dtype)
    for parameter_name, parameter in model.named_parameters():
        is_added = any(part in parameter_name for part in ADDED) and "talk" not in parameter_name
        parameter.requires_grad_(is_added)
    return model, forward


def pixels(dtype=torch.float64):
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1)).to(dtype).requires_grad_()


def restart_at(layers, layer):
    """Return a hook that detaches a layer's input tokens, and a list that gets them."""
    kept = []

    def restart(module, args, kwargs):
        kept.append(args[0].detach().requires_grad_())
        return (kept[0], *args[1:]), kwargs

    return layers[layer].register_forward_pre_hook(restart, with_kwargs=True), kept


def parts(model, forward, inputs, begin):
    """Return the target's logit, and the sum of tokens and biases times their gradients."""
    with libra_gradients(model, keeps_parameters=True) as libra_pass:
        logits = forward(inputs)[:, 1]
    libra_pass.check(logits)
    libra_pass.check_steps()
    begin = begin if isinstance(begin, list) else [begin]
    given = [*begin, *(parameter for parameter in model.parameters() if parameter.requires_grad)]
    gradients = torch.autograd.grad(logits.sum(), given, allow_unused=True)
    return logits.sum(), sum((g * p).sum() for g, p in zip(gradients, given, strict=True) if g is not None)


@pytest.mark.parametrize("name", [*FAMILIES, *OTHERS])
def test_input_times_gradient_and_the_biases_sum_to_the_logit_at_every_layer(name):
    model, forward = make_ready(name)
    inputs, layers = pixels(), transformer_layers(model)
    logit, total = parts(model, forward, inputs, inputs)
    assert_close(total, logit, rtol=1e-9, atol=1e-9)
    for layer in range(3):
        hook, kept = restart_at(layers, layer)
        with hook:
            logit, total = parts(model, forward, inputs, kept)
        assert kept
        assert_close(total, logit, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", [*FAMILIES, *OTHERS])
def test_in_single_precision_too_and_the_results_are_the_models(name):
    model, forward = make_ready(name, torch.float32)
    inputs = pixels(torch.float32)
    logit, total = parts(model, forward, inputs, inputs)
    assert_close(total, logit, rtol=1e-4, atol=1e-4)
    has_module = any(isinstance(module, nn.MultiheadAttention) for module in model.modules())
    exact = {"rtol": 1e-5, "atol": 1e-5} if has_module else {"rtol": 0, "atol": 0}
    model.requires_grad_(False)  # a mask that requires grad has another kernel
    with libra_gradients(model):
        found = forward(inputs)
    assert_close(found, forward(inputs), **exact)


def test_without_balance_it_is_not_complete():
    model, forward = make_ready("ViT")
    inputs = pixels()
    given = [inputs, *(parameter for parameter in model.parameters() if parameter.requires_grad)]
    logit = forward(inputs)[:, 1].sum()
    gradients = torch.autograd.grad(logit, given, allow_unused=True)
    total = sum((g * p).sum() for g, p in zip(gradients, given, strict=True) if g is not None)
    assert (total - logit).abs() > 0.01 * logit.abs()  # a hundred times LibraGrad's error


def test_attention_is_constant_and_products_are_halved():
    """Two tokens 1 and 3 attend uniformly to both; products are summed by hand."""
    model = nn.Identity()
    tokens = torch.tensor([[[[1.0], [3.0]]]], requires_grad=True)
    with libra_gradients(model):
        attended = F.scaled_dot_product_attention(torch.zeros_like(tokens) * tokens, tokens * 0, tokens)  # 2 and 2
        product = attended * tokens  # 2 and 6
    (gradient,) = torch.autograd.grad(product.sum(), tokens)
    assert_close(product.flatten(), torch.tensor([2.0, 6.0]))
    # Half of the factor 2, and half of its share of both attended tokens, (1 + 3) / 4.
    assert_close(gradient.flatten(), torch.tensor([2.0, 2.0]))
    assert_close((gradient * tokens).sum(), product.sum())


@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        (F.linear, {"input": 2.0, "weight": 3.0, "bias": 5.0}),
        (torch.mul, {"input": 2.0, "other": 3.0}),
        (torch.addmm, {"input": 5.0, "mat1": 2.0, "mat2": 3.0}),
    ],
)
@pytest.mark.parametrize("position", range(3))
def test_products_of_arguments_by_name(function, arguments, position):
    """Each factor of 2 · 3 gets half of the gradient, and the summand all of it."""
    arguments = {name: torch.full((1, 1), value, requires_grad=True) for name, value in arguments.items()}
    tensors, names = list(arguments.values()), list(arguments)[position:]
    with libra_gradients(nn.Identity(), keeps_parameters=True):
        paths = [tensor * 1 for tensor in tensors]
        product = function(*paths[:position], **dict(zip(names, paths[position:], strict=False)))
    given = dict(zip(arguments, torch.autograd.grad(product, tensors), strict=True))
    added = given.pop("bias", None) if function is F.linear else given.pop("input") if len(given) > 2 else None
    assert added is None or added == 1
    assert [float(gradient) for gradient in given.values()] == [1.5, 1.0]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(dtype):
    model, forward = make_ready("ViT", dtype)
    inputs = pixels(dtype)
    logit, total = parts(model, forward, inputs, inputs)
    assert_close(total, logit, rtol=0.1, atol=0.1)


def test_autocast():
    model, forward = make_ready("ViT", torch.float32)
    inputs = pixels(torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        expected = forward(inputs)
        with libra_gradients(model):
            found = forward(inputs)
    assert found.dtype == expected.dtype
    assert_close(found, expected)
    gradient = torch.autograd.grad(found[:, 1].sum(), inputs)[0]
    with libra_gradients(model):
        exact = torch.autograd.grad(forward(inputs)[:, 1].sum(), inputs)[0]
    assert (gradient - exact).norm() < 0.1 * exact.norm()


def test_the_model_is_restored(vit, images):
    register_rule(transformers.ViTForImageClassification, "linear")  # so that hooks are set
    try:
        before = state(vit)
        plain = torch.autograd.grad(vit(images.requires_grad_()).logits[:, 1].sum(), images)[0]
        with libra_gradients(vit):
            assert state(vit) != before
            vit(images)
        assert state(vit) == before
        with pytest.raises(ZeroDivisionError), libra_gradients(vit):
            vit(images * (1 / 0))
        assert state(vit) == before
        after = torch.autograd.grad(vit(images).logits[:, 1].sum(), images)[0]
        assert_close(after, plain, rtol=0, atol=0)
    finally:
        del registry._registered[transformers.ViTForImageClassification]


def test_in_this_thread_only(vit, images):
    def gradient():
        inputs = images.clone().requires_grad_()
        return torch.autograd.grad(vit(inputs).logits[:, 1].sum(), inputs)[0]

    plain, found = gradient(), []
    thread = threading.Thread(target=lambda: found.append(gradient()))
    with libra_gradients(vit):
        thread.start()
        thread.join()
        assert not torch.allclose(gradient(), plain)
    assert_close(found[0], plain, rtol=0, atol=0)
