"""Captured attention calls against torch's own."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.testing import assert_close

from captum_gmar.engine.hooks.attention_mode import AttentionCall, AttentionMode


class Recording(AttentionMode):
    """Mode that records attention calls."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def attend(self, call):
        self.calls.append(call)
        return call.run()


def random(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=torch.float64)


@pytest.mark.parametrize("options", [{"is_causal": True}, {"scale": 0.3}, {"attn_mask": random(5, 5) > -1}])
@pytest.mark.parametrize("key_heads", [4, 2])
def test_expanded_calls_and_their_weights_give_torch_s_output(options, key_heads):
    key, value = random(2, key_heads, 5, 3), random(2, key_heads, 5, 6)
    call = AttentionCall(random(2, 4, 5, 3), key, value, enable_gqa=key_heads < 4, **options)
    expected = F.scaled_dot_product_attention(*call[:5], call.is_causal, scale=call.scale, enable_gqa=call.enable_gqa)
    assert_close(call.run(), expected)
    expanded = call.expand_heads()
    assert not expanded.is_causal
    assert expanded.key.shape[1] == expanded.value.shape[1] == 4
    assert_close(expanded.run(), expected)
    assert_close(call.weights() @ expanded.value, expected)


@pytest.mark.parametrize("need_weights", [False, True])
def test_multihead_attention_is_captured_and_unchanged(need_weights):
    torch.manual_seed(0)
    layer, tokens = nn.MultiheadAttention(12, 3, batch_first=True).double(), random(2, 5, 12)
    expected, expected_weights = layer(tokens, tokens, tokens, need_weights=need_weights, average_attn_weights=False)
    with Recording() as mode:
        output, weights = layer(tokens, tokens, tokens, need_weights=need_weights, average_attn_weights=False)
    assert_close(output, expected)
    (call,) = mode.calls
    if need_weights:
        assert_close(weights, expected_weights)
        assert_close(call.weights(), expected_weights)
        with pytest.raises(RuntimeError, match="computes with the attention weights"):
            weights.sum().backward()
    else:
        assert weights is None
