"""Functions and their gradients against formulas with detached constants."""

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from captum_gmar.engine.hidden_states import functions


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
    "GELU": (functions.gelu, lambda x: x * torch.distributions.Normal(0.0, 1.0).cdf(x).detach(), F.gelu),
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
