"""``captum-gmar explain --prompt``: a page of what fed every word of an answer."""

import json
import re

import pytest
import torch
from installed import HAS_TRANSFORMERS_5

if not HAS_TRANSFORMERS_5:
    pytest.skip("answers are explained with transformers 5 or newer", allow_module_level=True)

from answering import save_answering_model
from PIL import Image

from captum_gmar import AnswerEvidence
from captum_gmar.classifier.answering import load_answering
from cli.commandline import save_photo, written


@pytest.fixture(scope="session")
def answering_model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("answering")
    save_answering_model(folder)
    return folder


def content(page):
    return json.loads(re.search('id="content">(.*?)</script>', page.read_text(encoding="utf-8"))[1])


def test_every_image_gets_a_page_of_its_answer(run, work, answering_model):
    save_photo(work / "other.png", seed=1)
    (work / "broken.png").write_bytes(b"no image")
    images = ["photo.png", "broken.png", "other.png"]
    result = run(*images, "--model", answering_model, "--prompt", "what?", "--answer", "a cat", "--output", "out/")
    assert result.status == 1
    assert result.err.splitlines() == ["captum-gmar: error: broken.png: not an image in any format that Pillow reads"]
    assert written(work / "out") == ["other-answer-what-a-cat.html", "photo-answer-what-a-cat.html"]
    assert "photo.png\n  answer     a cat\n  page       out/photo-answer-what-a-cat.html\n" in result.out
    told = content(work / "out" / "photo-answer-what-a-cat.html")
    model, processor = load_answering(answering_model)
    explained = AnswerEvidence(model, processor).attribute("what?", "a cat", images=Image.open(work / "photo.png"))
    assert told["words"] == ["a", "cat"]
    expected = explained.words().picture_relevance().flatten(1)
    torch.testing.assert_close(torch.tensor(told["pictures"][0]["relevance"]), expected, rtol=1e-3, atol=1e-6)


def test_the_model_answers_where_no_answer_is_given(run, work, answering_model):
    result = run("photo.png", "--model", answering_model, "--prompt", "what?", "--output", "page.html")
    assert (result.status, result.err) == (0, "")
    assert content(work / "page.html")["words"]


def test_the_built_in_model_is_asked_where_none_is_named(run, work):
    result = run("--prompt", "what is above the star?", "--output", "out/")
    assert (result.status, result.err) == (0, "")
    page = "out/built-in-scene-answer-what-is-above-the-star.html"
    assert f"built-in-scene\n  answer     a striped ring\n  page       {page}\n" in result.out
    assert content(work / page)["words"] == ["a", "striped", "ring"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--answer", "a"], "--answer must go with --prompt"),
        (["--prompt", "what?", "--methods", "rollout"], "--methods must go without --prompt"),
        (["--prompt", "what?", "--size", "32"], "--size must go without --prompt"),
        (["--prompt", "what?", "--output", "page.png"], "--output must end in one of .html"),
        (["--prompt", "what?", "--answer", ""], "target must be text of at least one token. Got '' instead"),
        (["--prompt", "what? " * 30], "inputs must be of at most the model's 128 positions"),
    ],
)
def test_what_cannot_be_asked_is_one_line(run, work, answering_model, arguments, message):
    result = run("photo.png", "--model", answering_model, *arguments)
    assert result.is_error(message)
    assert written(work) == ["out", "photo.png"]


def test_a_classifier_answers_nothing(run, work, models):
    result = run("photo.png", "--model", models / "vit", "--prompt", "what?")
    assert result.is_error("not a model that answers about pictures: its model type is 'vit'")
