"""The balanced backward pass: complete at every layer of every family, by formula, and gone afterwards."""

import threading

import pytest
import torch
import torch.nn.functional as F
import transformers
from families import FAMILIES, OwnHead, hugging_face, make
from snapshots import state
from torch import nn
from torch.testing import assert_close
from transformers.activations import ACT2FN

from captum_gmar.engine.hidden_states import functions, registry
from captum_gmar.engine.hidden_states.libragrad import balanced
from captum_gmar.engine.hidden_states.registry import register_rule
from captum_gmar.engine.models.layers import transformer_layers
from captum_gmar.engine.models.patch_grid import Logits

# What a model adds to its tokens, by the names of its parameters: the part of the logit that no pixel gave.
ADDED = ("bias", "cls_token", "class_embedding", "pos", "reg_token", "register", "dist")


class Encoder(nn.Module):
    """torch's own layers, of nn.MultiheadAttention."""

    def __init__(self, norm_first):
        super().__init__()
        self.patch_embed = nn.Conv2d(3, 24, 8, 8)
        layer = nn.TransformerEncoderLayer(24, 3, 48, 0.0, "gelu", batch_first=True, norm_first=norm_first)
        self.encoder, self.head = nn.TransformerEncoder(layer, 3, enable_nested_tensor=False), nn.Linear(24, 10)

    def forward(self, pixel_values):
        return self.head(self.encoder(self.patch_embed(pixel_values).flatten(2).mT).mean(1))


class Norm(nn.Module):
    """RMSNorm as transformers writes it."""

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
    """As EVA's and others': one path through SiLU times another."""

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
    "torch's encoder": lambda: Encoder(norm_first=True),
    "torch's encoder, norm last": lambda: Encoder(norm_first=False),
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


def ready(name, dtype=torch.float64):
    """A model whose parameters that are added require grad, and what runs it."""
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


def restarted(layers, layer):
    """A hook by which autograd begins at the tokens that enter a layer, and these tokens, once it has run."""
    kept = []

    def restart(module, args, kwargs):
        kept.append(args[0].detach().requires_grad_())
        return (kept[0], *args[1:]), kwargs

    return layers[layer].register_forward_pre_hook(restart, with_kwargs=True), kept


def parts(model, forward, inputs, begin):
    """The target's logits, and the sum of what the tokens where autograd begins and the biases after them give."""
    with balanced(model, keeps_parameters=True) as balancing:
        logits = forward(inputs)[:, 1]
    balancing.check(logits)
    balancing.check_all_met()
    begin = begin if isinstance(begin, list) else [begin]
    given = [*begin, *(parameter for parameter in model.parameters() if parameter.requires_grad)]
    gradients = torch.autograd.grad(logits.sum(), given, allow_unused=True)
    return logits.sum(), sum((g * p).sum() for g, p in zip(gradients, given, strict=True) if g is not None)


@pytest.mark.parametrize("name", [*FAMILIES, *OTHERS])
def test_input_times_gradient_and_the_biases_sum_to_the_logit_at_every_layer(name):
    model, forward = ready(name)
    inputs, layers = pixels(), transformer_layers(model, 3)
    logit, total = parts(model, forward, inputs, inputs)
    assert_close(total, logit, rtol=1e-9, atol=1e-9)
    for layer in range(3):
        hook, kept = restarted(layers, layer)
        with hook:
            logit, total = parts(model, forward, inputs, kept)
        assert kept
        assert_close(total, logit, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", [*FAMILIES, *OTHERS])
def test_in_single_precision_too_and_the_results_are_the_models(name):
    model, forward = ready(name, torch.float32)
    inputs = pixels(torch.float32)
    logit, total = parts(model, forward, inputs, inputs)
    assert_close(total, logit, rtol=1e-4, atol=1e-4)
    has_module = any(isinstance(module, nn.MultiheadAttention) for module in model.modules())
    exact = {"rtol": 1e-5, "atol": 1e-5} if has_module else {"rtol": 0, "atol": 0}
    model.requires_grad_(False)  # a mask that requires grad has another kernel
    with balanced(model):
        found = forward(inputs)
    assert_close(found, forward(inputs), **exact)


def test_without_balance_it_is_not_complete():
    model, forward = ready("ViT")
    inputs = pixels()
    given = [inputs, *(parameter for parameter in model.parameters() if parameter.requires_grad)]
    logit = forward(inputs)[:, 1].sum()
    gradients = torch.autograd.grad(logit, given, allow_unused=True)
    total = sum((g * p).sum() for g, p in zip(gradients, given, strict=True) if g is not None)
    assert (total - logit).abs() > 0.01 * logit.abs()  # a hundred times what it is within where gradients are balanced


def norm(x, mean, variance, shape=()):
    return (x - mean) / (variance.detach() + 1e-5).sqrt()


weight, bias = torch.linspace(-1, 2, 6).double(), torch.linspace(3, 5, 6).double()


def group_norm(x):
    groups = x.unflatten(1, (2, 3))
    mean, variance = groups.mean((2, 3), keepdim=True), groups.var((2, 3), correction=0, keepdim=True)
    return norm(groups, mean, variance).flatten(1, 2) * weight[:, None] + bias[:, None]


# torch's function, and its formula with detach() on what is constant; of inputs (4, 6, 6).
FORMULAS = {
    "layer norm": (
        lambda x: functions.layer_norm(x, (6,), weight, bias),
        lambda x: norm(x, x.mean(-1, keepdim=True), x.var(-1, correction=0, keepdim=True)) * weight + bias,
        lambda x: F.layer_norm(x, (6,), weight, bias),
    ),
    "layer norm of two dimensions": (
        lambda x: functions.layer_norm(x, (6, 6)),
        lambda x: norm(x, x.mean((1, 2), keepdim=True), x.var((1, 2), correction=0, keepdim=True)),
        lambda x: F.layer_norm(x, (6, 6)),
    ),
    "RMS norm": (
        lambda x: functions.rms_norm(x, (6,), weight, 1e-5),
        lambda x: norm(x, 0, x.square().mean(-1, keepdim=True)) * weight,
        lambda x: F.rms_norm(x, (6,), weight, 1e-5),
    ),
    "group norm": (
        lambda x: functions.group_norm(x, 2, weight, bias),
        group_norm,
        lambda x: F.group_norm(x, 2, weight, bias),
    ),
    "normalize": (
        lambda x: functions.normalize(x, dim=-1),
        lambda x: x / x.norm(dim=-1, keepdim=True).detach(),
        lambda x: F.normalize(x, dim=-1),
    ),
    "GELU": (
        functions.gelu,
        lambda x: x * torch.distributions.Normal(0.0, 1.0).cdf(x).detach(),
        F.gelu,
    ),
    "GELU, tanh": (
        lambda x: functions.gelu(x, approximate="tanh"),
        lambda x: x * torch.sigmoid(2 * (2 / torch.pi) ** 0.5 * (x + 0.044715 * x.pow(3))).detach(),
        lambda x: F.gelu(x, approximate="tanh"),
    ),
    "SiLU": (functions.silu, lambda x: x * (1 / (1 + (-x).exp())).detach(), F.silu),
    "mish": (functions.mish, lambda x: x * (1 + x.exp()).log().tanh().detach(), F.mish),
    "hardswish": (functions.hardswish, lambda x: x * ((x + 3).clamp(0, 6) / 6).detach(), F.hardswish),
    "GLU": (functions.glu, lambda x: x[..., :3] * torch.sigmoid(x[..., 3:]).detach(), F.glu),
}


@pytest.mark.parametrize("name", FORMULAS)
def test_formulas(name):
    ours, formula, torchs = FORMULAS[name]
    x = 3 * torch.randn(4, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x.requires_grad_()
    upstream = torch.randn(formula(x).shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    assert_close(ours(x), torchs(x))
    found, expected, plain = (torch.autograd.grad(f(x), x, upstream)[0] for f in (ours, formula, torchs))
    assert_close(found, expected)
    assert not torch.allclose(found, plain)


def test_attention_is_constant_and_products_are_halved():
    """By hand: of two tokens 1 and 3 that attend to both alike, squared and summed."""
    model = nn.Identity()
    tokens = torch.tensor([[[[1.0], [3.0]]]], requires_grad=True)
    with balanced(model):
        attended = F.scaled_dot_product_attention(torch.zeros_like(tokens) * tokens, tokens * 0, tokens)  # 2 and 2
        product = attended * tokens  # 2 and 6
    (gradient,) = torch.autograd.grad(product.sum(), tokens)
    assert_close(product.flatten(), torch.tensor([2.0, 6.0]))
    # Half of what it multiplies, 2, and as much of its part in both attended tokens: (1 + 3) / 4.
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
@pytest.mark.parametrize("by_place", range(3))
def test_products_of_arguments_by_name(function, arguments, by_place):
    """By hand: 2 · 3, of which each has half, and what is added has all."""
    arguments = {name: torch.full((1, 1), value, requires_grad=True) for name, value in arguments.items()}
    tensors, names = list(arguments.values()), list(arguments)[by_place:]
    with balanced(nn.Identity(), keeps_parameters=True):
        paths = [tensor * 1 for tensor in tensors]
        product = function(*paths[:by_place], **dict(zip(names, paths[by_place:], strict=False)))
    given = dict(zip(arguments, torch.autograd.grad(product, tensors), strict=True))
    added = given.pop("bias", None) if function is F.linear else given.pop("input") if len(given) > 2 else None
    assert added is None or added == 1
    assert [float(gradient) for gradient in given.values()] == [1.5, 1.0]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(dtype):
    model, forward = ready("ViT", dtype)
    inputs = pixels(dtype)
    logit, total = parts(model, forward, inputs, inputs)
    assert_close(total, logit, rtol=0.1, atol=0.1)


def test_autocast():
    model, forward = ready("ViT", torch.float32)
    inputs = pixels(torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        expected = forward(inputs)
        with balanced(model):
            found = forward(inputs)
    assert found.dtype == expected.dtype
    assert_close(found, expected)
    gradient = torch.autograd.grad(found[:, 1].sum(), inputs)[0]
    with balanced(model):
        exact = torch.autograd.grad(forward(inputs)[:, 1].sum(), inputs)[0]
    assert (gradient - exact).norm() < 0.1 * exact.norm()


class TestUnknown:
    @pytest.fixture(autouse=True)
    def forget(self, monkeypatch):
        monkeypatch.setattr(registry, "_registered", {})

    def run(self, model):
        with balanced(model) as balancing:
            logits = model.double()(pixels())
        balancing.check(logits)
        balancing.check_all_met()

    def total(self, model):
        model.double()
        for name, parameter in model.named_parameters():
            parameter.requires_grad_("bias" in name and "talk" not in name)
        inputs = pixels()
        return parts(model, Logits(model), inputs, inputs)

    def test_gate(self):
        model = activated(nn.ELU())()
        message = (
            r"does not know what ELU 'blocks.0.mlp.1' computes by elu. .* but HandWrittenLayer 'blocks.0' puts it "
            r"beside others by add. .*captum_gmar.register_rule\(ELU, rule\)"
        )
        with pytest.raises(RuntimeError, match=message):
            self.run(model)
        register_rule(nn.ELU, "gate")
        logit, total = self.total(model)
        assert_close(total, logit, rtol=1e-9, atol=1e-9)

    def test_gate_of_a_function(self):
        register_rule(F.elu, "gate")
        logit, total = self.total(activated(nn.ELU())())
        assert_close(total, logit, rtol=1e-9, atol=1e-9)

    def test_norm_by_a_callable(self):
        class Odd(nn.Module):
            def forward(self, x):
                return torch.special.expit(x.abs().mean(-1, keepdim=True)) * x.softmax(-1)

        def rule(module, x):
            return x * (module.forward(x) / x).detach()

        model = HandWritten(Odd)
        with pytest.raises(
            RuntimeError, match=r"what Odd 'blocks.0.norm' computes by special_expit.* puts it beside others"
        ):
            self.run(model)
        register_rule(Odd, rule)
        logit, total = self.total(model)
        assert_close(total, logit, rtol=1e-9, atol=1e-9)

    def test_linear_module_of_functions_that_are_not_known(self):
        class Twice(nn.Module):
            def forward(self, x):
                return torch.fft.irfft(2 * torch.fft.rfft(x), n=x.shape[-1])

        model = HandWritten(mlp=nn.Sequential(nn.Linear(24, 24), Twice(), nn.Linear(24, 24)))
        with pytest.raises(RuntimeError, match=r"what Twice 'blocks.0.mlp.1' computes by"):
            self.run(model)
        register_rule(Twice, "linear")
        logit, total = self.total(model)
        assert_close(total, logit, rtol=1e-9, atol=1e-9)

    def test_a_module_that_is_registered_and_cuts_its_result_off(self):
        class Cut(nn.Module):
            def forward(self, x):
                return x.detach()

        register_rule(Cut, "linear")
        with pytest.raises(RuntimeError, match=r"what Cut 'blocks.0.mlp' computes by forward"):
            self.run(HandWritten(mlp=Cut()))

    @pytest.mark.parametrize("last", [nn.Softmax(-1), nn.Sigmoid(), nn.Tanh()])
    def test_results_that_are_no_logits(self, last):
        model = nn.Sequential(HandWritten(), last)
        with pytest.raises(
            RuntimeError, match=f"what {type(last).__name__} '1' computes by .* but it is what is to be"
        ):
            self.run(model)

    def test_functions_of_autograd(self):
        class Through(torch.autograd.Function):
            @staticmethod
            def forward(ctx, x):
                return x.clone()

            @staticmethod
            def backward(ctx, grad):
                return grad

        class Calls(nn.Module):
            def forward(self, x):
                return Through.apply(x)

        model = HandWritten(mlp=Calls())
        with pytest.raises(RuntimeError, match=r"cannot meet Through: .* say so: .*rule\(Through, 'linear'\)"):
            self.run(model)
        register_rule(Through, "linear")
        logit, total = self.total(model)
        assert_close(total, logit, rtol=1e-9, atol=1e-9)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda x: x.clone().sin_(), r"does not know sin_, by which Changing 'blocks.0.mlp' changes .* call sin,"),
            (lambda x: x.clone().mul_(x), r"cannot share out mul_, by which Changing 'blocks.0.mlp' changes"),
        ],
    )
    def test_in_place(self, change, message):
        class Changing(nn.Module):
            def forward(self, x):
                return change(x)

        with pytest.raises(RuntimeError, match=message):
            self.run(HandWritten(mlp=Changing()))

    @pytest.mark.filterwarnings("ignore")  # tracing warns of itself
    def test_traced_and_checkpointed(self):
        model = HandWritten()
        with (
            pytest.raises(RuntimeError, match="is traced or exported"),
            balanced(torch.jit.trace(model, pixels().float())),
        ):
            pass
        model.grad_checkpointing = True
        with pytest.raises(RuntimeError, match="without gradient checkpointing"), balanced(model):
            pass

    @pytest.mark.filterwarnings("ignore")
    def test_compiled_functions(self):
        traced = torch.jit.trace(F.gelu, torch.zeros(2, 16, 24, dtype=torch.float64))

        class Traced(nn.Module):
            def forward(self, x):
                return traced(x)

        with pytest.raises(RuntimeError, match=r"cannot meet .*Backward.*: .* code that is compiled or traced"):
            self.run(HandWritten(mlp=Traced()))

    def test_tensors_that_are_iterated_over(self):
        class Unpacked(nn.Module):
            def forward(self, x):
                return torch.stack([2 * row for row in x])

        logit, total = self.total(HandWritten(mlp=Unpacked()))
        assert_close(total, logit, rtol=1e-9, atol=1e-9)

    def test_batch_statistics(self):
        class BatchNorm(nn.BatchNorm1d):
            def forward(self, x):
                return super().forward(x.mT).mT

        model = HandWritten(lambda: BatchNorm(24))
        with pytest.raises(RuntimeError, match=r"BatchNorm 'blocks.0.norm' computes by batch_norm"):
            self.run(model)
        model.apply(lambda module: isinstance(module, nn.BatchNorm1d) and module.reset_running_stats())
        logit, total = self.total(model.eval())
        assert_close(total, logit, rtol=1e-9, atol=1e-9)

    def test_dropout(self):
        model = HandWritten(mlp=nn.Dropout(0.1))
        with pytest.raises(RuntimeError, match=r"Expected a model without dropout but got dropout of p=0.1"):
            self.run(model)
        self.total(model.eval())

    @pytest.mark.parametrize(
        ("kind", "rule", "error", "message"),
        [
            (3, "gate", TypeError, "kind must be a class of modules or a function. Got 3 instead."),
            (nn.ELU, "gates", ValueError, "rule must be 'linear', 'gate' or a callable. Got 'gates' instead."),
            (torch.autograd.Function, "gate", ValueError, "rule must be 'linear'. Got 'gate' instead."),
        ],
    )
    def test_wrong_rules(self, kind, rule, error, message):
        with pytest.raises(error, match=message):
            register_rule(kind, rule)


def test_nothing_is_left_behind(vit, images):
    register_rule(transformers.ViTForImageClassification, "linear")  # so that hooks are set
    try:
        before = state(vit)
        plain = torch.autograd.grad(vit(images.requires_grad_()).logits[:, 1].sum(), images)[0]
        with balanced(vit):
            assert state(vit) != before
            vit(images)
        assert state(vit) == before
        with pytest.raises(ZeroDivisionError), balanced(vit):
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
    with balanced(vit):
        thread.start()
        thread.join()
        assert not torch.allclose(gradient(), plain)
    assert_close(found[0], plain, rtol=0, atol=0)
