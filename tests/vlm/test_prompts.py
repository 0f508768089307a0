"""Prompts and pictures by the model's processor, and errors in one line."""

import pytest
import torch
from installed import HAS_TRANSFORMERS_5

if not HAS_TRANSFORMERS_5:
    pytest.skip("AnswerEvidence needs transformers 5 or newer", allow_module_level=True)

from answering import build_processor, build_tokenizer, photo
from text_models import text_model

from captum_gmar import AnswerEvidence

TEMPLATE = (
    "{% for message in messages %}{% for part in message.content %}"
    "{{ '<image>' if part.type == 'image' else part.text }}{% endfor %}: {% endfor %}"
)


@pytest.fixture(scope="module")
def model():
    return text_model("llava")[0]


@pytest.mark.parametrize(
    ("prompt", "template", "text"),
    [
        ("what?", None, "<image><image>what?"),
        ("see <image> or <image>?", TEMPLATE, "see <image> or <image>?"),
        ("what?", TEMPLATE, "<image><image>what?: "),
    ],
)
def test_a_prompt_is_what_the_processor_makes_of_it(model, prompt, template, text):
    processor, images = build_processor(chat_template=template), [photo(), photo(20, 30)]
    inputs = processor(images=images, text=text, return_tensors="pt")
    inputs["pixel_values"] = inputs["pixel_values"].double()
    expected = AnswerEvidence(model).attribute(inputs, target=[20, 21])
    result = AnswerEvidence(model, processor).attribute(prompt, images=images, target="jk")
    torch.testing.assert_close(result.relevance, expected.relevance)
    assert result.tokens == ("j", "k")
    assert [tuple(picture.columns.shape) for picture in result.pictures] == [(4, 4), (4, 4)]
    assert "".join(result.prompt_tokens) == text.replace("<image>", "")
    of_pictures = torch.cat([picture.positions for picture in result.pictures]).tolist()
    assert [place for place, part in enumerate(result.prompt_tokens) if not part] == sorted(of_pictures)


def test_a_model_of_text_takes_a_prompt_by_its_tokenizer():
    model, tokenizer = text_model("llama")[0], build_tokenizer()
    result = AnswerEvidence(model, tokenizer).attribute("ab?", target="cd")
    expected = AnswerEvidence(model).attribute(tokenizer("ab?", return_tensors="pt"), target=[13, 14])
    torch.testing.assert_close(result.relevance, expected.relevance)
    assert result.prompt_length == 3
    assert result.prompt_tokens == ("a", "b", "?")


def other_image_token():
    processor = build_processor()
    processor.image_token_id = 7
    return processor


@pytest.mark.parametrize(
    ("name", "processor", "prompt", "images", "options", "message"),
    [
        ("llava", lambda: None, "what?", photo, {}, "processor must be the model's own"),
        ("llava", build_tokenizer, "what?", photo, {}, "processor must take pictures"),
        ("llava", other_image_token, "what?", photo, {}, "whose image token is 90, but got 7 of LlavaProcessor"),
        (
            "llava",
            build_processor,
            "what?",
            lambda: "none.png",
            {},
            "LlavaProcessor cannot be given the pictures or prompt",
        ),
        ("llava", build_processor, "what?", lambda: torch.zeros(7), {}, "cannot be given the pictures or prompt"),
        ("llava", build_processor, "what?", photo, {"target": ""}, "target must be text of at least one token"),
        ("llava", build_processor, "what? " * 30, photo, {}, "inputs must fit the model's 128 positions"),
        ("llava", build_processor, "what?", photo, {"target": "a" * 120}, "the model's 128 positions"),
        ("llama", build_processor, "what?", photo, {}, "model must take pictures.*LlamaForCausalLM, of text"),
        ("llama", build_tokenizer, "", lambda: None, {}, "which knows 99 tokens, but got no tokens"),
    ],
)
def test_what_does_not_fit_is_told_in_one_line(name, processor, prompt, images, options, message):
    with pytest.raises(ValueError, match=message) as raised:
        AnswerEvidence(text_model(name)[0], processor()).attribute(prompt, images=images(), **options)
    assert "\n" not in str(raised.value)


def test_images_beside_inputs_are_refused(model):
    inputs = text_model("llava")[1]
    with pytest.raises(ValueError, match="images and sound require a prompt"):
        AnswerEvidence(model).attribute(inputs, images=photo(), target=[1])
