"""Sentences with words missing: what is cut out and what is drowned, by hand."""

import numpy as np
import pytest

pytest.importorskip("benchmarks.missing_words", reason="the benchmarks are not installed; they run in a checkout")

from benchmarks.missing_words import MISSING, damage
from benchmarks.spoken import RATE, Speech


def test_only_the_missing_words_change():
    samples = np.sin(np.arange(8 * RATE) / 9)
    speech = Speech(("a",) * 8, samples, np.stack([np.arange(8.0), np.arange(8.0) + 0.5], 1))
    for noise in (None, 10.0):
        damaged = damage(speech, noise).reshape(8, RATE)
        changed = (damaged != samples.reshape(8, RATE)).mean(1)
        expected = [0.5 if word in MISSING else 0 for word in range(8)]
        np.testing.assert_allclose(changed, expected, atol=1e-3)
        for word in MISSING:
            added = damaged[word, : RATE // 2] - samples.reshape(8, RATE)[word, : RATE // 2]
            decibels = 10 * np.log10(np.mean(added**2) / np.mean(samples**2))
            assert decibels == pytest.approx(0 if noise is None else 10, abs=0.3)
