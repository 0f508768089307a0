"""``captum-gmar explain`` with a speech recogniser: a page of the sounds that fed every word."""

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

from speech_models import save_recogniser

from captum_gmar import AnswerEvidence
from captum_gmar.classifier.vision_task import load_answering
from cli.commandline import written


@pytest.fixture(scope="module")
def recogniser(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recogniser")
    save_recogniser(folder)
    return folder


@pytest.fixture
def sound(work):
    samples = np.sin(np.arange(24_000) / 9) * 20_000
    with wave.open(str(work / "speech.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(samples.astype(np.int16).tobytes())
    return work / "speech.wav"


def test_a_page_has_the_sound_and_the_relevance_and_time_of_every_word(run, work, sound, recogniser):
    result = run("speech.wav", "--model", recogniser, "--answer", "a cat", "--output", "out/")
    assert (result.status, result.err) == (0, "")
    assert "speech.wav\n  answer     a cat\n  seen       the first 1 of 3 seconds\n" in result.out
    assert "  resampled  from 8000 to 16000 samples a second\n  page       out/speech-answer-a-cat.html" in result.out
    page = (work / "out" / "speech-answer-a-cat.html").read_text(encoding="utf-8")
    content = json.loads(re.search('id="content">(.*?)</script>', page)[1])
    words = AnswerEvidence(*load_answering(recogniser)).attribute(sound=sound, target="a cat").words()
    (picture,) = content["pictures"]
    assert (content["words"], picture["rows"], picture["columns"]) == (["a", "cat"], 1, 50)
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


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--answer", "a", "--contrast", "a"], "--contrast must differ from --answer"),
        (["--contrast", "a"], "--contrast requires --answer, whose words it is set against"),
        (["--methods", "rollout"], "--methods cannot be combined with a model of speech, which has every word"),
        (["--answer", "b", "--output", "page.png"], "--output must end in one of .html"),
        (["--answer", ""], "target must be text of at least one token"),
        (["--prompt", "what?"], "model must take pictures"),
    ],
)
def test_what_cannot_be_asked_is_one_line(run, work, sound, recogniser, arguments, message):
    files = ["photo.png"] if "--prompt" in arguments else ["speech.wav"]
    assert run(*files, "--model", recogniser, *arguments).is_error(message)
    assert not list(work.rglob("*.html"))
