"""Introspection against ``getattr`` of each module and name."""

import pytest
import torch
from families import make
from torch import nn

from captum_gmar.engine.models import introspection
from captum_gmar.engine.models.introspection import NAMES, ModelInfo, check_loaded


class ByClass(nn.Module):
    """Attributes in the class, behind a property, in a buffer and in a module."""

    global_pool = "max"

    def __init__(self):
        super().__init__()
        self.register_buffer("reg_token", torch.zeros(1, 4, 8))
        self.head_dist = nn.Linear(2, 2)
        self.drop_prob = None

    @property
    def cls_token(self):
        return torch.zeros(1, 2, 8)


class Wrapper(nn.Module):
    """Wrapper that forwards unknown attributes, as adapters do."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def __getattr__(self, name):
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("model"), name)


def traced():
    model = nn.Sequential(nn.Linear(2, 2))
    model.register_parameter("cls_token", nn.Parameter(torch.zeros(1, 1, 2)))
    return torch.jit.trace(model, torch.zeros(1, 2))


@pytest.mark.filterwarnings("ignore:.*torch.jit.trace.*")
@pytest.mark.parametrize(
    "model",
    [ByClass, lambda: Wrapper(ByClass()), traced, lambda: make("ViT")[0], lambda: make("timm-like, token")[0]],
    ids=["class", "wrapper", "traced", "ViT", "timm"],
)
def test_what_the_modules_themselves_answer(model):
    model = model()
    answers = {m: {name for name in NAMES if getattr(m, name, None) is not None} for m in model.modules()}
    info = ModelInfo(model)
    assert list(info.named.items()) == list(model.named_modules())
    expected = {module: names for module, names in answers.items() if names}
    assert {module: set(values) for module, values in info.modules if values} == expected
    assert {type(module) for module, _ in info.modules} == set(map(type, answers))


def test_hooks_are_looked_for_once_and_only_where_weights_are_missing(monkeypatch):
    """Looking at every module for every module would cost more than a small model's own pass."""
    asked = []
    monkeypatch.setattr(introspection, "_is_hooked", lambda info: asked.append(info))
    check_loaded(ModelInfo(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))), torch.ones(1))
    assert not asked
    with pytest.raises(RuntimeError, match="on the meta device"):
        check_loaded(ModelInfo(nn.Linear(2, 2, device="meta")), torch.ones(1))
    assert len(asked) == 1
