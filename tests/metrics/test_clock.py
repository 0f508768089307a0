"""Timing of calls."""

import time

import pytest
import torch

from captum_gmar.metrics.clock import time_call


def test_a_call_s_result_and_seconds():
    result, seconds = time_call(lambda: time.sleep(0.05) or "result", torch.device("cpu"))
    assert result == "result"
    assert 0.05 <= seconds < 5


def test_other_devices_are_synchronized_before_and_after(monkeypatch):
    calls = []
    monkeypatch.setattr(torch.accelerator, "synchronize", calls.append)
    device = torch.device("meta")
    time_call(lambda: calls.append("call"), device)
    assert calls == [device, "call", device]
    with pytest.raises(ZeroDivisionError):
        time_call(lambda: 1 / 0, device)
