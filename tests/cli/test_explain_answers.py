"""``captum-gmar explain --prompt``, and of speech: a page of what fed every word of an answer or a transcript."""

import base64
import json
import re
import wave
from io import BytesIO

import numpy as np
import pytest
import torch
from installed import HAS_TRANSFORMERS_5

if not HAS_TRANSFORMERS_5:
    pytest.skip("answers are explained with transformers 5 or newer", allow_module_level=True)

from answering import save_answering_model
from PIL import Image
from speech_models import save_audio_language_model, save_recogniser

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
    assert result.err.splitlines() == [
        "captum-gmar: error: broken.png cannot be read: not an image in any format that Pillow reads. Convert it."
    ]
    assert written(work / "out") == [f"other-answer-{MARK}.html", f"photo-answer-{MARK}.html"]
    assert f"photo.png\n  answer     a cat\n  page       out/photo-answer-{MARK}.html\n" in result.out
    told = content(work / "out" / f"photo-answer-{MARK}.html")
    model, processor = load_answering(answering_model)
    given = {"images": Image.open(work / "photo.png"), "with_gains": True}
    explained = AnswerEvidence(model, processor).attribute("what?", "a cat", **given)
    assert told["words"] == ["a", "cat"]
    assert told["gains"] == pytest.approx(explained.words().gains.tolist(), rel=1e-2)
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


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--prompt", "what?", "--answer", "a cat", "--contrast", " a  cat"], "--contrast must differ from"),
        (["--prompt", "what?", "--contrast", "a cat"], "--contrast requires --answer, but got none"),
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
    result = run("photo.png", *options)
    assert (result.status, result.out.splitlines()[-1]) == (0, "  film       film.gif")
    with Image.open(work / "film.gif") as film:
        assert (film.n_frames, film.info["duration"]) == (2, 700)
        assert max(film.size) >= 480


@pytest.fixture(scope="module")
def recogniser(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recogniser")
    save_recogniser(folder)
    return folder


@pytest.fixture
def sound(work):
    samples = np.sin(np.arange(24_000) / 9) * 20_000
    with wave.open(str(work / "speech.wav"), "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", ""))
        file.writeframes(samples.astype(np.int16).tobytes())
    return work / "speech.wav"


def test_a_page_has_the_sound_and_the_relevance_and_time_of_every_word(run, work, sound, recogniser):
    result = run("speech.wav", "--model", recogniser, "--answer", "a cat", "--output", "out/")
    assert (result.status, result.err) == (0, "")
    assert "speech.wav\n  answer     a cat\n  seen       the first 1 of 3 seconds\n" in result.out
    assert "  resampled  from 8000 to 16000 samples a second\n  page       out/speech-answer-a-cat.html" in result.out
    told = content(work / "out" / "speech-answer-a-cat.html")
    words = AnswerEvidence(*load_answering(recogniser)).attribute(sound=sound, target="a cat").words()
    (picture,) = told["pictures"]
    assert (told["words"], picture["rows"], picture["columns"]) == (["a", "cat"], 1, 50)
    torch.testing.assert_close(
        torch.tensor(picture["relevance"]), words.picture_relevance()[:, 0], rtol=1e-3, atol=1e-6
    )
    torch.testing.assert_close(torch.tensor(picture["times"]), words.times().float(), rtol=1e-3, atol=1e-3)
    with wave.open(BytesIO(base64.b64decode(picture["audio"].partition(",")[2]))) as file:
        assert (file.getframerate(), file.getnframes(), file.getsampwidth()) == (16_000, 16_000, 2)


def test_the_model_writes_down_what_it_hears(run, work, sound, recogniser):
    (work / "broken.wav").write_bytes(b"no sound")
    result = run(work / "speech.wav", "broken.wav", "--model", recogniser, "--output", "out/")
    assert (result.status, written(work / "out")) == (1, ["speech-answer.html"])
    assert "broken.wav cannot be read as a WAV file" in result.err


def test_an_audio_language_model_is_asked_about_a_sound(run, work, sound, tmp_path):
    save_audio_language_model(tmp_path)
    result = run("speech.wav", "--model", tmp_path, "--prompt", "who", "--answer", "a cat", "--output", "out/")
    assert (result.status, result.err) == (0, "")
    told = content(work / "out" / "speech-answer-who-a-cat.html")
    evidence = AnswerEvidence(*load_answering(tmp_path))
    words = evidence.attribute("who", sound=sound, target="a cat").words()
    (picture,) = told["pictures"]
    assert (told["words"], picture["columns"]) == (["a", "cat"], 25)
    assert "who" in told["prompt"]
    torch.testing.assert_close(
        torch.tensor(picture["relevance"]), words.picture_relevance()[:, 0], rtol=1e-3, atol=1e-6
    )
    assert run("speech.wav", "--model", tmp_path, "--output", "own/").status == 0
    assert written(work / "own") == ["speech-answer.html"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--answer", "a", "--contrast", "a"], "--contrast must differ from --answer"),
        (["--contrast", "a"], "--contrast requires --answer, but got none"),
        (["--methods", "rollout"], "--methods cannot be combined with a model of speech: it explains every word"),
        (["--answer", "b", "--output", "page.png"], "--output must end in one of .html"),
        (["--answer", ""], "target must be text of at least one token"),
        (["--prompt", "what?"], "inputs must be an empty prompt for WhisperForConditionalGeneration"),
    ],
)
def test_what_cannot_be_heard_is_one_line(run, work, sound, recogniser, arguments, message):
    assert run("speech.wav", "--model", recogniser, *arguments).is_error(message)
    assert not list(work.rglob("*.html"))
