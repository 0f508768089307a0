"""Switches of attention and compilation, with concurrent passes."""

import copy
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from families import Block, TimmLike
from torch.testing import assert_close
from transformers import PretrainedConfig, ViTForImageClassification

from captum_gmar import AttCAT, AttentionEvidence, AttentionRollout, GMARAttribution, LeGrad, record_attention
from captum_gmar.engine.attention.layer_readout import separate_layers
from captum_gmar.engine.models.attention_backend import attention_implementation, force_eager
from captum_gmar.engine.models.layers import transformer_layers


def test_attention_implementation_of_a_shared_config(make_vit):
    model = make_vit(attn_implementation="eager")
    other = ViTForImageClassification(model.config)
    with attention_implementation(model, "sdpa"):
        with attention_implementation(other, "sdpa"):
            assert model.config._attn_implementation == "sdpa"
        assert model.config._attn_implementation == "sdpa"
    assert model.config._attn_implementation == other.config._attn_implementation == "eager"


def run_in_thread(call):
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(call).result(10)


def test_other_threads_and_the_config_do_not_change(make_vit):
    model = make_vit(attn_implementation="eager")
    own_property = vars(PretrainedConfig)["_attn_implementation"]
    with attention_implementation(model, "sdpa"):
        assert model.config._attn_implementation == "sdpa"
        assert model.config._attn_implementation_internal == "eager"
        assert run_in_thread(lambda: model.config._attn_implementation) == "eager"
    assert vars(PretrainedConfig)["_attn_implementation"] is own_property


class WrittenOut(Block):
    """timm's attention after ``timm.layers.set_fused_attn(False)``."""

    def __init__(self):
        super().__init__()
        self.fused_attn = False
        self.read = []

    def forward(self, tokens):
        self.read.append(self.fused_attn)
        if self.fused_attn:
            return super().forward(tokens)
        query, key, value = self.qkv(self.norm(tokens)).unflatten(-1, (3, 3, 8)).permute(2, 0, 3, 1, 4)
        attended = (query @ key.mT * 8**-0.5).softmax(-1) @ value
        return tokens + self.proj(attended.transpose(1, 2).flatten(2))


@pytest.fixture
def not_fused():
    torch.manual_seed(0)
    model = TimmLike("token", {"cls_token": 1}).eval()
    model.blocks = torch.nn.Sequential(*(WrittenOut() for _ in range(3)))
    return model


@pytest.mark.parametrize("method", [GMARAttribution, AttentionRollout, AttentionEvidence, AttCAT])
def test_timms_attention_is_fused_for_the_pass(not_fused, images, method):
    fused = copy.deepcopy(not_fused)
    for block in fused.blocks:
        block.fused_attn = True
    expected = method(fused).relevance(images, 3)
    assert_close(method(not_fused).relevance(images, 3), expected, rtol=0, atol=0)
    assert all(block.fused_attn is False and all(block.read) for block in not_fused.blocks)


def test_timms_attention_of_two_passes_at_once(not_fused):
    """Fusion lasts until the last pass ends."""
    (block, *_), (entered, left) = not_fused.blocks, (threading.Event(), threading.Event())

    def outlast():
        with attention_implementation(not_fused, "sdpa"):
            entered.set()
            left.wait(10)
            return block.fused_attn

    with ThreadPoolExecutor(1) as pool:
        with attention_implementation(not_fused, "sdpa"):
            other = pool.submit(outlast)
            entered.wait(10)
        left.set()
        assert other.result(10)
    assert not block.fused_attn


def test_passes_that_want_different_attention_run_side_by_side(make_vit):
    model, both = make_vit(attn_implementation="eager"), threading.Barrier(2, timeout=10)
    own_property = vars(PretrainedConfig)["_attn_implementation"]

    def read(name):
        with attention_implementation(model, name):
            both.wait()
            name = model.config._attn_implementation
            both.wait()
        return name

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(read, ["sdpa", "eager"])) == ["sdpa", "eager"]
    assert vars(PretrainedConfig)["_attn_implementation"] is own_property


@pytest.fixture
def often_interrupted():
    """Make threads switch as often as possible."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("often_interrupted")
@pytest.mark.parametrize("make", [GMARAttribution, AttentionRollout, LeGrad])
def test_another_thread_gets_all_attention_while_this_one_explains(make_vit, images, make):
    model, done = make_vit(attn_implementation="eager"), threading.Event()
    expected = model(images, output_attentions=True).attentions
    expected_relevance = make(model).relevance(images, 3)

    def explain():
        found = []
        while not done.is_set():
            found.append(make(model).relevance(images, 3))
        return found

    with ThreadPoolExecutor(1) as pool:
        explained = pool.submit(explain)
        try:
            for _ in range(80):
                attentions = model(images, output_attentions=True).attentions
                assert len(attentions) == 3
                assert_close(attentions, expected)
        finally:
            done.set()
        assert explained.result(10)
        for relevance in explained.result():
            assert_close(relevance, expected_relevance)


@pytest.mark.usefixtures("often_interrupted")
@pytest.mark.parametrize("make", [LeGrad, AttentionEvidence])
def test_threads_that_cut_layers_apart(vit, images, make):
    """Each thread sees the hooks of all threads, also during their removal."""
    expected = make(vit).relevance(images[:1], 3)
    with ThreadPoolExecutor(4) as pool:
        for relevance in pool.map(lambda _: make(vit).relevance(images[:1], 3), range(120)):
            assert_close(relevance, expected)


def test_a_foreign_hook_without_keywords_changes_nothing(vit):
    """torch calls a hook without keywords if another thread removes it meanwhile."""
    layer = transformer_layers(vit)[0]
    with separate_layers([layer], 1):
        (hook,) = layer._forward_pre_hooks.values()
        assert run_in_thread(lambda: hook(layer, (torch.ones(1),))) is None


def test_a_user_s_own_implementation_does_not_change(make_vit):
    model = make_vit()
    model.config._attn_implementation_internal = "mine"
    with attention_implementation(model, "sdpa"):
        assert model.config._attn_implementation == "mine"


def is_compiled():
    calls = []

    def backend(graph, inputs):
        calls.append(graph)
        return graph.forward

    torch.compile(lambda x: x.sin(), backend=backend, dynamic=False)(torch.ones(2))
    return bool(calls)


@pytest.mark.filterwarnings("ignore")  # dynamo's own
def test_eager_mode_of_overlapping_passes():
    assert is_compiled()
    first, second = force_eager(), force_eager()
    first.__enter__()
    assert not is_compiled()
    second.__enter__()
    first.__exit__(None, None, None)
    assert not is_compiled()
    second.__exit__(None, None, None)
    assert is_compiled()
    with pytest.raises(ZeroDivisionError), force_eager():
        raise ZeroDivisionError
    assert is_compiled()


def test_one_pass_within_another(vit, images):
    """A pass with another implementation would hide attention from the outer pass."""

    def recording(inputs):
        record_attention(vit, inputs, 3)
        return vit(inputs).logits

    with pytest.raises(RuntimeError, match="eager attention cannot be combined with sdpa attention"):
        GMARAttribution(vit, forward_func=recording).attribute(images, 3)
    assert vit.config._attn_implementation == "sdpa"
    with attention_implementation(vit, "eager"), attention_implementation(vit, "eager"):
        assert vit.config._attn_implementation == "eager"
    assert vit.config._attn_implementation == "sdpa"
