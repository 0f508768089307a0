"""What explaining words costs: memory that is counted, against what is worked out by hand."""

import pytest
import torch
from installed import HAS_TRANSFORMERS_5

pytest.importorskip("benchmarks.word_cost", reason="the benchmarks are not installed; they run in a checkout")
if not HAS_TRANSFORMERS_5:
    pytest.skip("answers are explained with transformers 5 or newer", allow_module_level=True)

from benchmarks.word_cost import Held, measure


def test_memory_is_what_is_alive_at_once():
    with Held() as held:
        first = torch.empty(100, dtype=torch.uint8, device="meta")
        first.view(10, 10).add_(1)
        second = first + 1
        del first
        third = torch.cat([second, second])
        del second, third
        torch.empty(150, dtype=torch.uint8, device="meta")
    assert held.peak == 100 + 200


def test_all_words_cost_less_than_a_pass_and_a_third():
    row = measure(["tiny"]).splitlines()[-1].split("|")
    time, memory = (float(row[column].strip(" ×")) for column in (2, 4))
    assert time <= 1.3
    assert memory <= 1.2
