"""Unknown operations, and the rules that are registered for them."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.testing import assert_close

from captum_gmar.engine.hidden_states import registry
from captum_gmar.engine.hidden_states.libragrad import libra_gradients
from captum_gmar.engine.hidden_states.registry import register_rule
from captum_gmar.engine.models.patch_grid import Logits
from engine.hidden_states.test_libragrad import HandWritten, activated, parts, pixels


@pytest.fixture(autouse=True)
def empty_registry(monkeypatch):
    monkeypatch.setattr(registry, "_registered", {})


def run(model):
    with libra_gradients(model) as libra_pass:
        logits = model.double()(pixels())
    libra_pass.check(logits)
    libra_pass.check_steps()


def assert_complete(model):
    model.double()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("bias" in name and "talk" not in name)
    inputs = pixels()
    logit, total = parts(model, Logits(model), inputs, inputs)
    assert_close(total, logit, rtol=1e-9, atol=1e-9)


class Odd(nn.Module):
    def forward(self, x):
        return torch.special.expit(x.abs().mean(-1, keepdim=True)) * x.softmax(-1)


class Twice(nn.Module):
    def forward(self, x):
        return torch.fft.irfft(2 * torch.fft.rfft(x), n=x.shape[-1])


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


ELU = (
    r"needs a rule for elu in ELU 'blocks.0.mlp.1', but has none, and HandWrittenLayer 'blocks.0' puts it "
    r"beside others by add. .*captum_gmar.register_rule\(ELU, rule\)"
)


@pytest.mark.parametrize(
    ("make", "message", "kind", "rule"),
    [
        (activated(nn.ELU()), ELU, nn.ELU, "gate"),
        (activated(nn.ELU()), ELU, F.elu, "gate"),
        (
            lambda: HandWritten(Odd),
            r"special_expit in Odd 'blocks.0.norm'.* puts it beside",
            Odd,
            lambda module, x: x * (module.forward(x) / x).detach(),
        ),
        (activated(Twice()), r"in Twice 'blocks.0.mlp.1', but has none", Twice, "linear"),
        (
            lambda: HandWritten(mlp=Calls()),
            r"needs a rule for Through, .*rule\(Through, 'linear'\)",
            Through,
            "linear",
        ),
    ],
    ids=["gate", "gate of a function", "callable", "linear module", "function of autograd"],
)
def test_unknown_until_a_rule_is_registered(make, message, kind, rule):
    model = make()
    with pytest.raises(RuntimeError, match=message):
        run(model)
    register_rule(kind, rule)
    assert_complete(model)


def test_a_module_that_is_registered_and_cuts_its_result_off():
    class Cut(nn.Module):
        def forward(self, x):
            return x.detach()

    register_rule(Cut, "linear")
    with pytest.raises(RuntimeError, match=r"forward in Cut 'blocks.0.mlp'"):
        run(HandWritten(mlp=Cut()))


@pytest.mark.parametrize("last", [nn.Softmax(-1), nn.Sigmoid(), nn.Tanh()])
def test_results_that_are_no_logits(last):
    model = nn.Sequential(HandWritten(), last)
    with pytest.raises(RuntimeError, match=f"in {type(last).__name__} '1', .* and it is what is to be"):
        run(model)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda x: x.clone().sin_(),
            r"needs a rule for sin_, but has none: Changing 'blocks.0.mlp' changes .* Call sin,",
        ),
        (lambda x: x.clone().mul_(x), r"Changing 'blocks.0.mlp' changes one in place by mul_"),
    ],
)
def test_in_place(change, message):
    class Changing(nn.Module):
        def forward(self, x):
            return change(x)

    with pytest.raises(RuntimeError, match=message):
        run(HandWritten(mlp=Changing()))


@pytest.mark.filterwarnings("ignore")  # tracing warns of itself
def test_traced_and_checkpointed():
    model = HandWritten()
    traced = torch.jit.trace(model, pixels().float())
    with pytest.raises(RuntimeError, match="is traced or exported"), libra_gradients(traced):
        pass
    model.grad_checkpointing = True
    with pytest.raises(RuntimeError, match="without gradient checkpointing"), libra_gradients(model):
        pass


@pytest.mark.filterwarnings("ignore")
def test_compiled_functions():
    traced = torch.jit.trace(F.gelu, torch.zeros(2, 16, 24, dtype=torch.float64))

    class Traced(nn.Module):
        def forward(self, x):
            return traced(x)

    with pytest.raises(RuntimeError, match=r"needs a rule for .*Backward.* compiled code"):
        run(HandWritten(mlp=Traced()))


def test_tensors_that_are_iterated_over():
    class Unpacked(nn.Module):
        def forward(self, x):
            return torch.stack([2 * row for row in x])

    assert_complete(HandWritten(mlp=Unpacked()))


def test_batch_statistics():
    class BatchNorm(nn.BatchNorm1d):
        def forward(self, x):
            return super().forward(x.mT).mT

    model = HandWritten(lambda: BatchNorm(24))
    with pytest.raises(RuntimeError, match=r"batch_norm in BatchNorm 'blocks.0.norm'"):
        run(model)
    model.apply(lambda module: isinstance(module, nn.BatchNorm1d) and module.reset_running_stats())
    assert_complete(model.eval())


def test_dropout():
    model = HandWritten(mlp=nn.Dropout(0.1))
    with pytest.raises(RuntimeError, match=r"model must run without dropout, but drops with p=0.1"):
        run(model)
    assert_complete(model.eval())


@pytest.mark.parametrize(
    ("kind", "rule", "error", "message"),
    [
        (3, "gate", TypeError, "kind must be a class of modules or a function, but got 3."),
        (nn.ELU, "gates", ValueError, "rule must be 'linear', 'gate' or a callable, but got 'gates'."),
        (torch.autograd.Function, "gate", ValueError, "rule must be 'linear', but got 'gate'."),
    ],
)
def test_wrong_rules(kind, rule, error, message):
    with pytest.raises(error, match=message):
        register_rule(kind, rule)
