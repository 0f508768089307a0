"""The page of an answer, in a real browser: words show their maps, patches the words that they fed."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from captum_gmar.files.sounds import Sound
from captum_gmar.inspection.answer_page import AnswerPage
from captum_gmar.vlm.attribution import AnswerAttribution
from captum_gmar.vlm.image_tokens import PictureTokens
from inspection.browser import BROWSER, told_by

# Of the second word the first patch speaks for it, the last against; the third word comes of two tokens.
RELEVANCE = [
    [0, 0.1, 0, 0, 0.9, 0, 0],
    [0.5, 0, 0, -0.25, 0, 0.25, 0],
    [0, 0, 0.5, 0, 0, 0, 0.5],
    [0, 1.0, 0, 0, 0, 0, 0],
]
DRIVER = """
<script>
const tell = {};
const fills = () => [...document.querySelectorAll("rect")].map(rect =>
  [rect.getAttribute("fill"), Number(rect.getAttribute("fill-opacity"))]);
const word = number => document.querySelector(`[data-word='${number}']`);
const tints = name => [...document.querySelectorAll(name)].map(each =>
  Number((/ ([0-9.]+)%/.exec(each.style.background) ?? [0, 0])[1]) / 100);
const key = (target, name) => target.dispatchEvent(new KeyboardEvent("keydown", {key: name, bubbles: true}));
tell.first = Number(document.querySelector("[aria-pressed=true]").dataset.word);
document.querySelector("[data-word='1']").dispatchEvent(new Event("mouseenter"));
tell.hovered = fills();
tell.hoveredText = document.getElementById("told").textContent;
tell.prompt = [...document.querySelectorAll("#prompt span")].map(each => each.textContent);
tell.tints = [tints("#prompt span"), tints("#answer button")];
document.getElementById("answer").dispatchEvent(new Event("mouseleave"));
tell.left = fills();
document.querySelector("[data-word='2']").click();
document.getElementById("answer").dispatchEvent(new Event("mouseleave"));
tell.clicked = fills();
document.querySelectorAll("rect")[0].dispatchEvent(new Event("click"));
tell.patchText = document.getElementById("told").textContent;
tell.patchTints = tints("#answer button");
const svg = document.querySelector("svg");
svg.focus(); key(svg, "ArrowRight"); key(svg, "ArrowDown");
tell.walked = [...document.querySelectorAll("rect")].findIndex(rect => rect.classList.contains("chosen"));
key(svg, "Escape");
tell.escaped = [fills(), document.querySelector("rect.chosen")];
word(0).focus(); key(word(0), "ArrowRight");
if (!document.hasFocus()) document.activeElement.dispatchEvent(new Event("focus"));  // a window behind tells none
tell.focused = [document.activeElement === word(1), fills()];
tell.words = [...document.querySelectorAll("button")].map(button => button.textContent);
document.body.innerHTML = "<pre>@" + btoa(unescape(encodeURIComponent(JSON.stringify(tell)))) + "@</pre>";
</script>
"""


SITE_STYLE = Path(__file__).resolve().parents[2] / "docs" / "static" / "site.css"
# Luminances of text and ground in the frame, as the reader of a page picks its theme by a button.
THEMES = """
<script>
const luminance = text => { const [r, g, b] = text.match(/[0-9.]+/g).map(Number); return (2 * r + 7 * g + b) / 2550; };
addEventListener("load", () => {
  const told = {}, inside = document.querySelector("iframe").contentWindow;
  for (const theme of ["auto", "light", "dark"]) {
    document.body.dataset.theme = theme;
    const style = inside.getComputedStyle(inside.document.documentElement);
    told[theme] = [style.color, style.backgroundColor].map(luminance);
  }
  document.body.innerHTML = "<pre>@" + btoa(JSON.stringify(told)) + "@</pre>";
});
</script>
"""


@pytest.fixture
def attribution():
    return AnswerAttribution(
        tokens=("<b>a", " star", " dot", "ted"),
        relevance=torch.tensor(RELEVANCE),
        encoded_relevance=None,
        scores=torch.ones(4),
        totals=torch.ones(4),
        prompt_length=5,
        pictures=(PictureTokens(torch.arange(4).view(2, 2)),),
        prompt_tokens=("", "", "", "", "</script> what?"),
        gains=torch.tensor([0.5, -1.25, 2.0, 1.5]),
        attended=torch.ones(4, 7),
    )


@pytest.fixture
def page(attribution):
    return AnswerPage(attribution, Image.new("RGB", (64, 32), "#808080"))


def content_of(page):
    return json.loads(re.search(r'id="content">(.*?)</script>', page.html, re.DOTALL)[1])


@pytest.mark.skipif(BROWSER is None, reason="needs Chromium, and finds none")
def test_words_show_their_maps_and_patches_their_words(page, tmp_path):
    told = told_by(page.html.replace("</html>", DRIVER + "</html>"), tmp_path)
    assert told["words"] == ["<b>a", "star", "dotted"]
    speaking, against = "var(--for)", "var(--against)"
    assert told["hovered"] == [[speaking, 0.85], [speaking, 0], [speaking, 0], [against, 0.425]]
    assert told["hoveredText"].replace("\u00a0", " ") == (
        "“star”, probability 73.1 %: of its evidence, 75 % is in the picture, 0 % in the prompt and 25 % in the answer "
        "before it. Against the mean colour, the picture added −1.25 to its log-odds. Of these words, “<b>a” "
        "holds most, 25 %."
    )
    assert told["prompt"] == ["</script> what?"]
    assert told["tints"] == [[0], [pytest.approx(0.85 * 0.25 / 0.9, abs=1e-3), 0, 0]]
    dotted = [[speaking, 0], [speaking, 0.85], [speaking, 0.425], [speaking, 0]]
    assert told["first"] == 2  # 1.5 nats of its evidence are in the picture, of the others' 0.75 and 0.1
    assert told["left"] == told["clicked"] == dotted
    assert told["patchText"].startswith(
        "Row 1, column 1: 50\u00a0% of the evidence of “star”, its largest share of any word."
    )
    assert told["patchTints"] == [0, 0.85, 0]
    assert told["walked"] == 3  # from the first one to the right and down
    assert told["escaped"] == [dotted, None]
    assert told["focused"] == [True, told["hovered"]]


@pytest.mark.skipif(BROWSER is None, reason="needs Chromium, and finds none")
def test_faint_patches_of_a_word_stay_faint(page, tmp_path):
    """The first word's patch holds 10 %, the answer's largest 50 %."""
    script = DRIVER.replace("tell.first", "word(0).click(); tell.faint = fills(); tell.first")
    told = told_by(page.html.replace("</html>", script + "</html>"), tmp_path)
    assert told["faint"][1] == ["var(--for)", pytest.approx(0.85 * 0.1 / (0.5 / 4))]


def test_words_of_phrases_and_contrasts_have_no_probability(attribution):
    phrase = attribution.phrases([slice(0, 2), slice(2, 4)])
    rather = replace(attribution, contrast="dog")
    for part in (phrase, rather):
        content = content_of(AnswerPage(part, Image.new("RGB", (64, 32))))
        assert content["probabilities"] is None
        assert (content["earlierRelevance"] is None) == (part is phrase)


@pytest.mark.skipif(BROWSER is None, reason="needs Chromium, and finds none")
@pytest.mark.parametrize("system", ["light", "dark"])
def test_the_frame_follows_the_theme_of_the_site_and_else_the_system(page, system, tmp_path):
    frame = page._repr_html_().replace("sandbox", "data-sandbox")  # so that the script can look into it
    style = SITE_STYLE.read_text(encoding="utf-8")
    html = f'<!DOCTYPE html><style>{style}</style><body data-theme="auto">{frame}{THEMES}</body>'
    preference = f"--blink-settings=preferredColorScheme={int(system == 'light')}"
    for theme, (text, ground) in told_by(html, tmp_path, preference).items():
        darkest, brightest = sorted((text, ground))
        assert (darkest < 0.1, brightest > 0.9) == (True, True), theme
        assert (ground < text) == ((system if theme == "auto" else theme) == "dark"), theme


def test_the_page_needs_nothing_else(page, tmp_path):
    assert not re.search(r"(?:src|href)=\"?(?!data:)(?:https?:)?//", page.html)
    assert "</script> what?" not in page.html
    page.save(tmp_path / "page.html")
    assert (tmp_path / "page.html").read_text(encoding="utf-8") == page.html
    framed = page._repr_html_()
    assert framed.startswith("<iframe srcdoc=")
    assert framed.count("<") == 2


def test_words_of_the_template_in_a_prompt_stay_as_they_are(attribution):
    of_unknown_tokens = replace(attribution, prompt_tokens=())
    html = AnswerPage(of_unknown_tokens, Image.new("RGB", (64, 32)), "what is @CONTENT@?").html
    assert "what is @CONTENT@?" in html


def test_a_large_photo_is_scaled_down_in_the_page(attribution):
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 256, (2000, 3000, 3), dtype=np.uint8))
    html = AnswerPage(attribution, photo).html
    assert '"width":640,"height":427' in html
    assert len(html) < 1_000_000


@pytest.mark.parametrize(
    ("images", "pictures", "message"),
    [
        ([], (PictureTokens(torch.arange(4).view(2, 2)),), "images must be the 1 of the attribution, but got 0"),
        (
            [np.zeros((2, 2))],
            (PictureTokens(torch.zeros(2, 2, 2).long()),),
            "must be of pictures or a sound, but got a v",
        ),
        ([np.zeros((2, 2))], None, "which image token is for which position"),
    ],
)
def test_what_cannot_be_shown_is_refused(attribution, images, pictures, message):
    with pytest.raises(ValueError, match=message):
        AnswerPage(replace(attribution, pictures=pictures), images)


SOUND_DRIVER = """
<script>
const tell = {};
document.querySelector("[data-word='1']").dispatchEvent(new Event("mouseenter"));
const span = document.querySelector("rect.span");
tell.span = ["x", "width"].map(name => Number(span.getAttribute(name)));
tell.text = document.getElementById("told").textContent;
tell.fills = [...document.querySelectorAll("rect:not(.span)")].map(rect => Number(rect.getAttribute("fill-opacity")));
document.querySelectorAll("rect")[3].dispatchEvent(new Event("click"));
tell.place = document.getElementById("told").textContent;
document.querySelector("[data-word='1']").click();
document.getElementById("focus").click();
tell.focus = [...document.querySelectorAll("rect:not(.span)")].map(rect => Number(rect.getAttribute("fill-opacity")));
document.querySelectorAll("rect")[3].dispatchEvent(new Event("click"));
tell.focusText = document.getElementById("told").textContent;
tell.scale = [...document.querySelectorAll(".scale span")].map(each => each.textContent.replace("\u00a0", " "));
tell.audio = document.querySelector("audio").src.slice(0, 20);
document.body.innerHTML = "<pre>@" + btoa(unescape(encodeURIComponent(JSON.stringify(tell)))) + "@</pre>";
</script>
"""


@pytest.mark.skipif(BROWSER is None, reason="needs Chromium, and finds none")
def test_words_of_a_sound_have_their_times(tmp_path):
    relevance = torch.tensor([[1.0, 0, 0, 0, 0, 0], [0, 0, 0.5, 0.5, 0, 0]])
    attended = torch.tensor([[1.0, 0, 0, 0, 0, 0], [0, 0, 1, 3, 0, 0]])
    sound = Sound(np.sin(np.arange(6400) / 5).astype(np.float32), 16_000, 0.4, 16_000)
    tokens = PictureTokens(torch.arange(6)[None], True, seconds=0.1)  # the last two are padding
    attribution = AnswerAttribution(
        **{"tokens": ("one", " two"), "relevance": torch.zeros(2, 3), "encoded_relevance": relevance},
        **{"scores": torch.ones(2), "totals": torch.ones(2), "prompt_length": 2, "pictures": (tokens,), "sound": sound},
        attended=attended,
    )
    told = told_by(AnswerPage(attribution).html.replace("</html>", SOUND_DRIVER + "</html>"), tmp_path)
    assert told["span"] == [480, 480]  # of 960 pixels
    assert "“two” (0.20–0.40 s)" in told["text"]
    assert "of its evidence, 100\u00a0% is in the sound, 0\u00a0% in the prompt" in told["text"]
    assert told["fills"] == [0, 0, 0.85, 0.85]
    assert told["place"].startswith("Second 0.30: 50\u00a0% of the evidence of “two”")
    assert told["focus"][:2] == [0, 0]  # both have half of the evidence
    assert told["focus"][2:] == pytest.approx([0.85 / 3, 0.85], abs=1e-3)
    assert told["scale"] == ["0 %", "75 %"]
    assert told["focusText"].startswith("Second 0.30: 75\u00a0% of the focus of “two”")
    assert told["audio"] == "data:audio/wav;base6"
    with pytest.raises(ValueError, match=r"images must be the 0 of the attribution, but got 1"):
        AnswerPage(attribution, np.zeros((2, 2)))
