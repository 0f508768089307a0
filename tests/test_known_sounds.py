"""The benchmark of words with known times, on a tiny recogniser and made-up times."""

import ctypes.util

import numpy as np
import pytest
import torch
from installed import HAS_TRANSFORMERS_5

pytest.importorskip("benchmarks.known_sounds", reason="the benchmarks are not installed; they run in a checkout")
if not HAS_TRANSFORMERS_5:
    pytest.skip("answers are explained with transformers 5 or newer", allow_module_level=True)

from speech_models import SPEECH_MODELS
from torch.testing import assert_close

from benchmarks.heard import Heard
from benchmarks.known_sounds import METHODS, in_time, is_peak, log_odds, order
from benchmarks.spoken import RATE, VOICES, Speaker, Speech, make_sentence


@pytest.fixture(scope="module")
def heard():
    torch.manual_seed(0)
    model = SPEECH_MODELS["whisper"]()[0].eval()
    speech = Speech(("one", "two"), np.ones(int(0.8 * RATE)), np.array([[0.0, 0.2], [0.4, 0.6]]))
    states = torch.randn(1, 50, 16)
    return Heard(model, states, torch.zeros(16), (2, 5), (7, 8, 9), (slice(0, 2), slice(2, 3)), speech)


def test_hidden_frames_are_filled_by_silence(heard):
    shown = torch.arange(heard.frames) % 3 != torch.tensor([[0], [1]])
    for word in range(2):
        for row, scores in enumerate(heard.scores(shown, word)):
            filled = heard.states.clone()
            filled[0, : heard.frames][~shown[row]] = heard.silence
            with torch.no_grad():
                logits = heard.model(encoder_outputs=(filled,), decoder_input_ids=heard.decoder_ids).logits[0, -3:]
            expected = log_odds(logits)[range(3), heard.ids][heard.words[word]].sum()
            assert_close(scores, expected, rtol=1e-4, atol=1e-4)


def test_every_method_gives_each_word_a_map(heard, monkeypatch):
    monkeypatch.setattr("benchmarks.known_sounds.ALIGNMENT_HEADS", ((0, 1), (1, 0)))
    for explain, _ in METHODS.values():
        assert explain(heard).shape == (2, 50)


def test_measures_of_known_maps(heard):
    relevance = torch.zeros(2, 50)
    relevance[0, :20], relevance[1, 25] = 1, 1
    assert_close(in_time(heard, relevance), torch.tensor([0.5, 1.0]))
    assert is_peak(heard, relevance).tolist() == [1, 1]


def test_the_reverse_order_is_as_bad_as_the_order_is_good(heard):
    relevance = torch.randn(2, 50, generator=torch.Generator().manual_seed(0))
    assert_close(order(heard, relevance, [0, 1]), -order(heard, -relevance, [0, 1]), rtol=1e-4, atol=1e-4)


@pytest.mark.skipif(ctypes.util.find_library("espeak-ng") is None, reason="needs espeak-ng, and finds none")
def test_spoken_words_have_sound_in_their_times():
    speaker = Speaker()
    for speak, voice in zip((speaker.paced, speaker.running), VOICES, strict=True):
        speech = speak(make_sentence(1), voice)
        assert speech.times.shape == (8, 2)
        assert (speech.times[:, 0] < speech.times[:, 1]).all()
        assert (speech.times[1:, 0] >= speech.times[:-1, 1]).all()
        loud = [np.abs(speech.samples[slice(*(time * RATE).astype(int))]).max() for time in speech.times]
        assert min(loud) > 0.05
