"""Words of speech models: evidence against the formula, sounds as arrays and files, and the times of tokens."""

import wave
from itertools import combinations_with_replacement
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from installed import HAS_TRANSFORMERS_5

if not HAS_TRANSFORMERS_5:
    pytest.skip("AnswerEvidence needs transformers 5 or newer", allow_module_level=True)

import transformers
from speech_models import RECOGNISERS, SOUND_TOKEN, SPEECH_MODELS, speech_model
from text_models import ANSWER, text_model
from torch import nn
from torch.testing import assert_close

from captum_gmar import AnswerEvidence
from captum_gmar.vlm.words import word_spans
from vlm.test_decoder_pass import assert_evidence, dense_evidence
from vlm.test_evidence import Letters

SECONDS = {"whisper": 1.0, "moonshine": 0.375, "speecht5": 0.0125, "speech_to_text": 0.4}  # of the models' inputs
TONE = np.sin(np.arange(8000) / 9)  # half a second


class Tokenizer(Letters):
    """Tokenizer of words that begin with a space, as Whisper's."""

    def __call__(self, text, add_special_tokens):
        assert text[0] == " "
        return super().__call__(text[1:], add_special_tokens)

    def convert_tokens_to_ids(self, token):
        return 5


@pytest.fixture
def hearing():
    """Return a tiny Whisper, which reads a second of sound, and its processor."""
    extractor = transformers.WhisperFeatureExtractor(feature_size=8, chunk_length=1)
    return speech_model("whisper")[0], SimpleNamespace(feature_extractor=extractor, tokenizer=Tokenizer())


@pytest.mark.parametrize("name", SPEECH_MODELS)
def test_every_word_s_evidence_is_that_of_the_formula(name):
    model, inputs = speech_model(name)
    result = AnswerEvidence(model).attribute(inputs, target=ANSWER)
    parts, scores = dense_evidence(model, inputs, ANSWER)
    assert_evidence(result, torch.cat(parts, 1), scores)
    frames = torch.cat(parts, 1)[:, -parts[-1].shape[1] :]
    if name not in RECOGNISERS:
        frames = parts[0][:, (inputs["input_ids"][0] == SOUND_TOKEN).nonzero().flatten()]
    assert_close(result.picture_relevance()[:, 0] * result.totals[:, None], frames, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("name", SECONDS)
def test_tokens_last_as_long_as_the_sound(name):
    model, inputs = speech_model(name)
    (sound,) = AnswerEvidence(model).attribute(inputs, target=ANSWER).pictures
    assert abs(sound.columns.numel() * sound.seconds - SECONDS[name]) < 3 * sound.seconds


@pytest.mark.parametrize("name", ["whisper", "moonshine", "speech_to_text"])
def test_a_token_stands_for_its_time(name):
    torch.manual_seed(0)
    model, inputs = SPEECH_MODELS[name]()
    model = model.double().eval()
    (sound,) = AnswerEvidence(model).attribute(inputs, target=ANSWER).pictures
    model.get_encoder().layers = nn.ModuleList()  # its attention mixes times
    key = model.main_input_name
    time = inputs[key].shape.index(max(inputs[key].shape))
    place = int(0.6 * inputs[key].shape[time])
    changed = {key: inputs[key].index_fill(time, torch.tensor([place]), 9.0)}
    with torch.no_grad():
        before, after = (model.get_encoder()(x[key]).last_hidden_state[0] for x in (inputs, changed))
    rows = (before - after).abs().sum(1)
    if name == "moonshine":  # its group norm sees all of the sound
        rows = torch.where(rows > 0.05 * rows.max(), rows, 0)
    expected = 0.6 * SECONDS[name] / sound.seconds
    assert rows.nonzero().numel() < 6
    assert abs(float(rows.nonzero().double().mean()) - expected) <= 1.5


@pytest.mark.parametrize("form", ["array", "file", "stereo", "whole numbers", "bytes", "another rate"])
def test_a_sound_is_what_the_extractor_makes_of_it(hearing, form, tmp_path):
    model, processor = hearing
    samples, rate = TONE, np.int64(16_000)
    if form == "another rate":
        samples, rate = np.sin(np.arange(16_000) / 18), 32_000
    numbers = (samples * 32767).round().astype(np.int16)
    with wave.open(str(tmp_path / "sound.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(numbers.tobytes())
    sound = {
        "file": str(tmp_path / "sound.wav"),
        "stereo": (np.stack([2 * samples, 0 * samples], 1), rate),
        "whole numbers": (numbers, rate),
        "bytes": ((samples * 127 + 128).round().astype(np.uint8), rate),
    }.get(form, (samples, rate))
    result = AnswerEvidence(model, processor).attribute(sound=sound, target="cab")
    made = processor.feature_extractor(TONE, sampling_rate=16_000, return_tensors="pt")["input_features"].double()
    start = {"input_features": made, "decoder_input_ids": torch.tensor([[2, 5]])}
    expected = AnswerEvidence(model).attribute(start, target=[12, 10, 11])
    tolerance = 0.05 if form in ("another rate", "bytes") else 2e-3
    assert_close(result.scores, expected.scores, rtol=0, atol=tolerance)
    assert (result.sound.rate, result.sound.sampling_rate) == (rate, 16_000)
    assert result.sound.seconds == 0.5


def test_a_sound_longer_than_the_window_is_cut(hearing):
    model, processor = hearing
    result = AnswerEvidence(model, processor).attribute(sound=(np.tile(TONE, 5), 16_000), target="cab")
    assert result.sound.seconds == 2.5
    assert len(result.sound.samples) == 16_000


def test_silence_has_an_answer_that_gains_nothing(hearing):
    model, processor = hearing
    result = AnswerEvidence(model, processor).attribute(sound=(np.zeros(8000), 16_000), target="cab", with_gains=True)
    assert torch.isfinite(result.encoded_relevance).all()
    assert torch.equal(result.gains, torch.zeros(3, dtype=torch.float64))


def test_the_model_s_own_words_come_after_its_start(hearing):
    model, processor = hearing
    result = AnswerEvidence(model, processor).attribute(sound=(TONE, 16_000), gen_args={"max_new_tokens": 3})
    made = processor.feature_extractor(TONE, sampling_rate=16_000, return_tensors="pt")["input_features"].double()
    ids = torch.tensor([[2, 5]])
    with torch.no_grad():
        for _ in range(3):
            logits = model(input_features=made, decoder_input_ids=ids).logits[0, -1]
            ids = torch.cat([ids, logits.argmax().view(1, 1)], 1)
    answer = ids[0, 2:].tolist()
    assert result.tokens == tuple(map(Tokenizer().decode, [[number] for number in answer if number != 2]))
    assert result.prompt_length == 2


def test_whisper_s_language_and_task_come_first():
    torch.manual_seed(0)
    model, inputs = SPEECH_MODELS["whisper"]()
    model = model.double().eval()
    settings = {"lang_to_id": {"<|en|>": 50, "<|de|>": 51}, "task_to_id": {"transcribe": 60, "translate": 61}}
    settings |= {"no_timestamps_token_id": 62, "is_multilingual": True}
    for name, value in settings.items():
        setattr(model.generation_config, name, value)
    evidence = AnswerEvidence(model)
    given = evidence.attribute(inputs, target=ANSWER, gen_args={"language": "de", "task": "translate"})
    start = {**inputs, "decoder_input_ids": torch.tensor([[2, 51, 61, 62]])}
    assert_close(given.encoded_relevance, evidence.attribute(start, target=ANSWER).encoded_relevance)
    with torch.no_grad():
        first = model(**inputs, decoder_input_ids=torch.tensor([[2]])).logits[0, -1]
    start["decoder_input_ids"][0, 1:3] = torch.tensor([50 + int(first[51] > first[50]), 60])
    heard = evidence.attribute(inputs, target=ANSWER)
    assert_close(heard.encoded_relevance, evidence.attribute(start, target=ANSWER).encoded_relevance)
    with pytest.raises(ValueError, match=r"gen_args must have a language of <\|en\|>, <\|de\|> and a task of"):
        evidence.attribute(inputs, target=ANSWER, gen_args={"language": "xx"})


def test_faults_of_sounds_are_one_line(hearing, tmp_path):
    model, processor = hearing
    explain = AnswerEvidence(model, processor).attribute
    with pytest.raises(TypeError, match=r"sound must be a WAV file, or samples with their rate, but got ndarray"):
        explain(sound=TONE)
    for samples in (np.zeros(0), np.full(9, np.nan), np.zeros((2, 3, 4)), np.zeros(9, bool), np.zeros(())):
        with pytest.raises(ValueError, match="sound must be finite numbers, "):
            explain(sound=(samples, 16_000))
    with pytest.raises(OSError, match="no-such"):
        explain(sound=tmp_path / "no-such.wav")
    with pytest.raises(ValueError, match="inputs must be an empty prompt for WhisperForConditionalGeneration"):
        explain("what?", sound=(TONE, 16_000))
    with pytest.raises(ValueError, match="images and sound require a prompt"):
        explain(speech_model("whisper")[1], sound=(TONE, 16_000))
    with pytest.raises(ValueError, match="processor must take sounds"):
        AnswerEvidence(model).attribute(sound=(TONE, 16_000))
    with pytest.raises(ValueError, match=r"model must take sounds, where there is one, but got LlavaForCond"):
        AnswerEvidence(text_model("llava")[0]).attribute("what?", sound=(TONE, 16_000))
    with pytest.raises(ValueError, match="decoder_input_ids must be whole numbers of shape"):
        explain({**speech_model("whisper")[1], "decoder_input_ids": torch.ones(2)}, target=ANSWER)
    with pytest.raises(ValueError, match="target must be token ids without a tokenizer"):
        AnswerEvidence(model, processor.feature_extractor).attribute(sound=(TONE, 16_000), target="cab")


@pytest.mark.parametrize("name", RECOGNISERS)
def test_sounds_of_a_recogniser_are_one_tensor_of_any_precision(name):
    model, inputs = speech_model(name)
    explain, key = AnswerEvidence(model).attribute, model.main_input_name
    for sounds in (torch.cat([inputs[key]] * 2), inputs[key].numpy(), None):
        with pytest.raises(ValueError, match=rf"inputs must hold {key}, a tensor of one example, but got (\(2|n|N)"):
            explain({key: sounds}, target=ANSWER)
    single = explain({key: inputs[key].float()}, target=ANSWER).scores
    assert_close(single, explain(inputs, target=ANSWER).scores, rtol=1e-3, atol=1e-5)
    if name in ("whisper", "speech_to_text"):
        with pytest.raises(ValueError, match=r"inputs must fit the model's 32 positions.* but got 3[3-4] tokens"):
            explain(inputs, target=[3] * 33)


@pytest.mark.parametrize(
    ("extractor", "message"),
    [
        (transformers.WhisperFeatureExtractor(feature_size=9, chunk_length=1), "which reads 8 mel bins, but got"),
        (transformers.Wav2Vec2FeatureExtractor(), "which reads input_features, but got input_values"),
    ],
)
def test_a_processor_that_does_not_fit_is_refused(hearing, extractor, message):
    evidence = AnswerEvidence(hearing[0], extractor)
    with pytest.raises(ValueError, match=f"processor must fit the model, WhisperForConditionalGeneration, {message}"):
        evidence.attribute(sound=(TONE, 16_000), target=[3])


def test_a_model_without_decoder_is_refused():
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    config = transformers.Wav2Vec2Config(
        **sizes, conv_dim=(8,), conv_stride=(5,), conv_kernel=(10,), num_conv_pos_embedding_groups=2
    )
    with pytest.raises(ValueError, match=r"that generates text.* got Wav2Vec2ForCTC\. Load a recogniser"):
        AnswerEvidence(transformers.Wav2Vec2ForCTC(config))
    with pytest.raises(ValueError, match=r"that generates text.* got Wav2Vec2ForSequenceClassification\.$"):
        AnswerEvidence(transformers.Wav2Vec2ForSequenceClassification(config))


def test_the_trained_recogniser_is_explained_by_the_formula(shared):
    folder = shared / "models" / "whisper-tiny-en"
    model = transformers.WhisperForConditionalGeneration.from_pretrained(folder, dtype=torch.float64).eval()
    states = torch.randn(1, 200, 384, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    inputs = {"encoder_outputs": (states,)}
    answer = (262, 3797)  # " the cat"
    model.generation_config.decoder_start_token_id = 2
    result = AnswerEvidence(model).attribute(inputs, target=answer)
    parts, scores = dense_evidence(model, inputs, answer)
    assert_evidence(result, torch.cat(parts, 1), scores)


def best_spans(relevance, seconds):
    """Return the best spans by trying all."""
    positive = relevance.clamp(min=0)
    gains = positive / positive.sum(1, keepdim=True) - seconds / 2
    words, tokens = relevance.shape
    best = (-torch.inf, None)
    for borders in combinations_with_replacement(range(tokens + 1), 2 * words):
        spans = list(zip(borders[::2], borders[1::2], strict=True))
        if all(first < end for first, end in spans):
            value = sum(float(gains[word, first:end].sum()) for word, (first, end) in enumerate(spans))
            best = max(best, (value, spans), key=lambda pair: pair[0])
    return best[1]


def test_times_are_the_best_spans_of_all():
    for seed in range(8):
        relevance = torch.rand(2, 7, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        assert list(map(tuple, word_spans(relevance, 0.2).tolist())) == best_spans(relevance, 0.2)


def test_times_of_words_are_in_seconds_of_the_sound(hearing):
    model, processor = hearing
    result = AnswerEvidence(model, processor).attribute(sound=(TONE, 16_000), target="cab")
    times = result.times()
    assert times.shape == (3, 2)
    assert times.max() <= 0.5
    expected = word_spans(result.pictures[0].map(result.attended)[:, 0, :25], 0.02) * 0.02
    assert_close(times, expected)
    short = AnswerEvidence(model, processor).attribute(sound=(TONE[:7_880], 16_000), target="cab")
    assert short.times().max() <= 7_880 / 16_000 < 25 * 0.02  # the last frame ends after the sound
    result = (
        AnswerEvidence(model, processor)
        .attribute(sound=(TONE[:1], 16_000), target="cab" * 9)
        .phrases([slice(0, 1)] * 51)
    )
    with pytest.raises(ValueError, match="but got 51 words and 50 tokens"):
        result.times()
    with pytest.raises(ValueError, match=r"times\(\) must be of words of a sound"):
        AnswerEvidence(text_model("llava")[0]).attribute(text_model("llava")[1], target=ANSWER).times()


@pytest.mark.parametrize("name", ["whisper", "moonshine", "qwen2_audio"])
def test_gains_are_over_silence(name):
    model, inputs = speech_model(name)
    key = "input_values" if name == "moonshine" else "input_features"
    level = float(inputs[key].min()) if key == "input_features" else 0.0
    silent = {**inputs, key: torch.full_like(inputs[key], level)}
    explain = AnswerEvidence(model).attribute
    result = explain(inputs, target=ANSWER, with_gains=True)
    expected = result.scores - explain(silent, target=ANSWER).scores
    assert_close(result.gains, expected, rtol=1e-9, atol=1e-9)
    assert_close(result.phrases([slice(1, 3)]).gains, expected[1:3].sum()[None], rtol=1e-9, atol=1e-9)
    assert explain(inputs, target=ANSWER).gains is None


def test_gains_are_over_grey_pictures():
    model, inputs = text_model("llava")
    explain = AnswerEvidence(model).attribute
    result = explain(inputs, target=ANSWER, with_gains=True)
    grey = explain({**inputs, "pixel_values": 0 * inputs["pixel_values"]}, target=ANSWER)
    assert_close(result.gains, result.scores - grey.scores, rtol=1e-9, atol=1e-9)
    with pytest.raises(ValueError, match="with_gains must be False for inputs without pictures and sounds"):
        AnswerEvidence(text_model("llama")[0]).attribute(text_model("llama")[1], target=ANSWER, with_gains=True)
