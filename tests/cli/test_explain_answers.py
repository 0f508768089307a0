"""``captum-gmar explain --prompt``: a page of what fed every word of an answer."""

import json
import re
import shutil

import pytest
import torch
from installed import HAS_TRANSFORMERS_5

if not HAS_TRANSFORMERS_5:
    pytest.skip("answers are explained with transformers 5 or newer", allow_module_level=True)

from answering import save_answering_model
from PIL import Image

from captum_gmar import AnswerEvidence
from captum_gmar.classifier.vision_task import load_answering
from captum_gmar.cli.paths import picture_mark
from captum_gmar.files.writing import read_note
from cli.commandline import save_photo, written

MARK = picture_mark("what?", "a cat")


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
    assert written(work / "out") == [f"other-answer-{MARK}.html", f"photo-answer-{MARK}.html"]
    assert f"photo.png\n  answer     a cat\n  page       out/photo-answer-{MARK}.html\n" in result.out
    told = content(work / "out" / f"photo-answer-{MARK}.html")
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
    page = f"out/built-in-scene-answer-{picture_mark('what is above the star?')}.html"
    assert f"built-in-scene\n  answer     a striped ring\n  page       {page}\n" in result.out
    assert content(work / page)["words"] == ["a", "striped", "ring"]


def test_a_page_says_what_its_words_are_set_against_and_takes_no_other_pages_place(run, work, answering_model):
    asked = ["photo.png", "--model", answering_model, "--output", "out/", "--prompt"]
    long = "what is it that one sees in the very middle of this picture"
    questions = [
        ["what?", "--answer", "a cat"],
        ["what?", "--answer", "a cat", "--contrast", "a dog"],
        ["What?", "--answer", "a cat"],
        ["what", "--answer", "a cat"],
        [f"{long} now", "--answer", "a cat"],
        [f"{long} then", "--answer", "a cat"],
    ]
    for number, question in enumerate(questions):
        result = run(*asked, *question)
        assert (result.status, result.err) == (0, "")
        assert ("\n  contrast   a dog\n" in result.out) == ("a dog" in question)
        assert len({name.casefold() for name in written(work / "out")}) == number + 1
    (contrasted,) = [page for page in (work / "out").iterdir() if "rather-than" in page.name]
    html = contrasted.read_text(encoding="utf-8")
    assert "<title>What fed each word, rather than “a dog”</title>" in html
    assert "<h1>What fed each word, rather than “a dog”</h1>" in html
    assert "rather than" not in (work / "out" / f"photo-answer-{MARK}.html").read_text(encoding="utf-8")
    note = json.loads(read_note(contrasted))
    assert (note["prompt"], note["answer"], note["contrast"]) == ("what?", "a cat", "a dog")


def test_a_page_of_another_model_is_not_replaced(run, work, answering_model):
    asked = ["--prompt", "what?", "--answer", "a cat", "--output", "out/"]
    assert run("photo.png", "--model", answering_model, *asked).status == 0
    shutil.copytree(answering_model, work / "model")
    page = work / "out" / f"photo-answer-{MARK}.html"
    before = page.read_bytes()
    assert run("photo.png", "--model", "model", *asked).is_error(
        "is not replaced, as it is a picture with model answer"
    )
    assert page.read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--prompt", "what?", "--answer", "a cat", "--contrast", " a  cat"], "--contrast must differ from"),
        (["--prompt", "what?", "--contrast", "a cat"], "--contrast requires --answer, whose words it is set against"),
        (["--prompt", " "], "--prompt must be text, but got ' '."),
        (["--prompt", "what?", "--batch-size", "2"], "--batch-size cannot be combined with --prompt"),
        (["--answer", "a"], "--answer requires --prompt"),
        (["--prompt", "what?", "--methods", "rollout"], "--methods cannot be combined with --prompt"),
        (["--prompt", "what?", "--size", "32"], "--size cannot be combined with --prompt"),
        (["--prompt", "what?", "--output", "page.png"], "--output must end in one of .html"),
        (["--prompt", "what?", "--answer", ""], "target must be text of at least one token, but got ''"),
        (["--prompt", "what?", "--answer", "€€"], "target must have a token that the tokenizer knows, but got '€€'"),
        (["--prompt", "what? " * 30], "inputs must fit the model's 128 positions"),
    ],
)
def test_what_cannot_be_asked_is_one_line(run, work, answering_model, arguments, message):
    result = run("photo.png", "--model", answering_model, *arguments)
    assert result.is_error(message)
    assert written(work) == ["out", "photo.png"]


def test_film_says_the_answer_word_by_word(run, work, answering_model):
    options = ("--model", answering_model, "--prompt", "what?", "--answer", "a cat", "--output", "film.gif")
    assert run("photo.png", *options).status == 0
    with Image.open(work / "film.gif") as film:
        assert (film.n_frames, film.info["duration"]) == (2, 700)
        assert max(film.size) >= 480
