"""Answers that are generated, given as text, set against a contrast or refused."""

import copy

import pytest
import torch
from installed import HAS_TRANSFORMERS_5
from PIL import Image
from text_models import ANSWER, text_model
from torch.testing import assert_close
from transformers import ViTConfig, ViTForImageClassification

from captum_gmar import AnswerEvidence

if not HAS_TRANSFORMERS_5:
    pytest.skip("AnswerEvidence needs transformers 5 or newer", allow_module_level=True)

from answering import build_processor, photo

from vlm.test_decoder_pass import assert_evidence, dense_evidence


def test_contrast_is_the_difference_of_the_two_words():
    model, inputs = text_model("llava")
    result = AnswerEvidence(model).attribute(inputs, target=ANSWER, contrast=[3])

    def margins(logits):
        return logits - logits[:, [3]]

    parts, scores = dense_evidence(model, inputs, ANSWER, margins)
    assert_evidence(result, parts[0], scores)


def test_an_answer_is_generated_where_none_is_given():
    model, inputs = text_model("llava")
    result = AnswerEvidence(model).attribute(inputs, gen_args={"max_new_tokens": 3})
    expected = model.generate(**inputs, do_sample=False, max_new_tokens=3)[0, -3:].tolist()
    assert result.tokens == tuple(map(str, expected))


@pytest.mark.parametrize("name", ["llava", "qwen2_vl"])
@pytest.mark.parametrize("way", ["cpu_offload", "disk_offload", "device_map"])
def test_models_spread_by_accelerate(name, way, tmp_path):
    """Weights on the CPU, on disk, or the vision tower on disk and the rest on the CPU."""
    accelerate = pytest.importorskip("accelerate")
    model, inputs = text_model(name)
    expected = AnswerEvidence(model).attribute(inputs, target=ANSWER).relevance
    model = copy.deepcopy(model)
    if way == "device_map":
        devices = {f"model.{part}": "disk" for part, _ in model.model.named_children()}
        devices |= {"model.language_model": "cpu", "lm_head": "cpu"}
        model = accelerate.dispatch_model(model, devices, main_device="cpu", offload_dir=str(tmp_path))
    else:
        folder = {"offload_dir": str(tmp_path)} if way == "disk_offload" else {}
        model = getattr(accelerate, way)(model, execution_device="cpu", **folder)
    assert any(weight.is_meta for weight in model.parameters())
    found = AnswerEvidence(model).attribute(inputs, target=ANSWER).relevance
    assert_close(found, expected, rtol=0, atol=0)
    if name == "llava":
        prompted = AnswerEvidence(model, build_processor()).attribute("what?", "ab", images=photo()).scores
        whole = AnswerEvidence(text_model(name)[0], build_processor()).attribute("what?", "ab", images=photo()).scores
        assert_close(prompted, whole, rtol=0, atol=0)


class Letters:
    """Tokenizer of letters, in which "a" is 10."""

    def __call__(self, text, add_special_tokens):
        return {"input_ids": [ord(letter) - 87 for letter in text]}

    def decode(self, ids):
        return "".join(chr(number + 87) for number in ids)


def test_answers_of_text_are_cut_by_the_tokenizer():
    model, inputs = text_model("llava")
    result = AnswerEvidence(model, Letters()).attribute(inputs, target="cab", contrast="d")
    assert result.tokens == ("c", "a", "b")
    expected = AnswerEvidence(model).attribute(inputs, target=[12, 10, 11], contrast=[13])
    assert_close(result.relevance, expected.relevance)


@pytest.mark.parametrize(
    ("inputs", "options", "message"),
    [
        ({}, {"target": []}, "target must be at least one token of the model's 99"),
        ({}, {"target": [99]}, "target must be at least one token of the model's 99"),
        ({}, {"target": "cab"}, "target must be token ids without a tokenizer"),
        ({}, {"target": [3, 4], "contrast": [3, 4, 5]}, "contrast must be one token, or as many as the target's 2"),
        ({"input_ids": torch.ones(2, 3).long()}, {"target": [3]}, "inputs must be of one example"),
        ({"input_ids": torch.tensor([[1, *[90] * 32, 90]])}, {"target": [3]}, "[Ii]mage"),
        ({"input_ids": None}, {"target": [3]}, "inputs must hold input_ids, a tensor of whole numbers, but got None"),
        ({"input_ids": [[1, 5]]}, {"target": [3]}, "inputs must hold input_ids, a tensor of whole numbers"),
        ({"input_ids": torch.ones(1, 3)}, {"target": [3]}, "inputs must hold input_ids, a tensor of whole numbers"),
        ({"input_ids": torch.tensor([[1, -5, 99]])}, {"target": [3]}, r"tokens of the model, but got \[-5, 99\] among"),
        (
            {"attention_mask": torch.ones(1, 3)},
            {"target": [3]},
            r"attention_mask must have the shape of input_ids, \(1",
        ),
        ({}, {"target": 3}, "target must be text or token ids, but got 3"),
        ({}, {"target": b"ab"}, "target must be text or token ids"),
        ({}, {"target": [True]}, "target must be at least one token of the model's 99"),
        ({}, {"target": [3, 4], "contrast": [3, 4]}, r"contrast must be another answer than the target"),
        ({}, {"target": [3, 3], "contrast": [3]}, "contrast must be another answer than the target"),
        ({}, {"gen_args": "greedy"}, "gen_args must be a mapping of arguments of generate, but got 'greedy'"),
    ],
)
def test_bad_input_is_answered_by_what_to_do(inputs, options, message):
    model, good = text_model("llava")
    with pytest.raises((TypeError, ValueError), match=message):
        AnswerEvidence(model).attribute({**good, **inputs}, **options)


def test_words_that_the_tokenizer_does_not_know_are_refused():
    evidence = AnswerEvidence(text_model("llava")[0], build_processor())
    for answers, name in (({"target": "€€"}, "target"), ({"target": "ab", "contrast": "€"}, "contrast")):
        message = f"{name} must have a token that the tokenizer knows, but got '€+'"
        with pytest.raises(ValueError, match=message):
            evidence.attribute("what?", **answers, images=photo())


def test_pictures_have_pixels_and_a_number():
    evidence = AnswerEvidence(text_model("llava")[0], build_processor())
    with pytest.raises(ValueError, match=r"images must have pixels, but got sizes \[\(9, 0\)\]\."):
        evidence.attribute("what?", "a", images=Image.new("RGB", (0, 9)))
    for picture in (-1, 1, "a"):
        message = rf"picture must be below 1, the number of pictures, but got {picture!r}"
        with pytest.raises(IndexError, match=message):
            evidence.attribute("what?", "a", images=photo()).picture_relevance(picture)


def test_a_model_that_generates_nothing_is_refused():
    config = ViTConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8)
    with pytest.raises(ValueError, match="model must be one of transformers that generates text"):
        AnswerEvidence(ViTForImageClassification(config))
