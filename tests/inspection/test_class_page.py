"""The page of a prediction, in a real browser: classes show their maps, patches what they gave each class."""

import json
import re

import numpy as np
import pytest
import torch
from PIL import Image

from captum_gmar import GMARAttribution, TokenEvidence
from captum_gmar.inspection.class_page import ClassPage
from captum_gmar.metrics import Mean
from inspection.browser import BROWSER, told_by

PHOTO = Image.new("RGB", (60, 40), "#808080")
DRIVER = """
<script>
{
const tell = {}, all = name => [...document.querySelectorAll(name)];
const strengths = () => [...all("figure svg")[1].querySelectorAll("rect")].map(rect =>
  (rect.getAttribute("fill").includes("against") ? -1 : 1) * Number(rect.getAttribute("fill-opacity")));
const text = name => document.getElementById(name).textContent;
const key = (target, name) => target.dispatchEvent(new KeyboardEvent("keydown", {key: name, bubbles: true}));
const buttons = all(".class"), svg = all("figure svg")[1], rects = [...svg.querySelectorAll("rect")];
tell.names = buttons.map(button => button.firstChild.textContent);
tell.first = [text("claim"), strengths()];
buttons[1].dispatchEvent(new Event("mouseenter"));
tell.hovered = [text("claim"), strengths()];
buttons[1].dispatchEvent(new Event("mouseleave"));
tell.left = text("claim");
all(".rather")[2].click();
tell.contrast = [text("claim"), strengths()];
key(document.body, "Escape");
tell.escaped = text("claim");
rects[5].dispatchEvent(new Event("pointerenter"));
const scores = buttons.map(button => button.children[1].textContent);
tell.patch = [text("told"), scores, rects[5].classList.contains("chosen")];
svg.dispatchEvent(new Event("pointerleave"));
svg.focus(); key(svg, "ArrowRight"); key(svg, "ArrowDown"); key(svg, "ArrowRight");
tell.walked = rects.findIndex(rect => rect.classList.contains("chosen"));
buttons[0].focus(); key(buttons[0], "ArrowDown");
if (!document.hasFocus()) document.activeElement.dispatchEvent(new Event("focus"));  // a window behind tells none
tell.focused = [document.activeElement === buttons[1], text("claim")];
const box = rects[0].getBoundingClientRect(), whole = svg.getBoundingClientRect();
const [slider, only] = all("#proof input"), order = document.querySelector("#proof select");
const outlined = () => document.querySelector("#places path").getAttribute("d").split("M").length - 1;
const proof = () => [document.querySelector("output").textContent, all("figcaption")[0].textContent, outlined()];
const set = (input, value) => { input.value = value; input.dispatchEvent(new Event("input")); };
key(document.body, "Escape"); buttons[0].click();
set(slider, 3); tell.without = proof();
only.click(); tell.only = proof();
set(order, 1); tell.otherOrder = proof();
buttons[3].click(); tell.unproved = [proof(), slider.disabled];
tell.corner = [(box.left - whole.left) / whole.width, (box.top - whole.top) / whole.height];
document.body.innerHTML = "<pre>@" + btoa(unescape(encodeURIComponent(JSON.stringify(tell)))) + "@</pre>";
}
</script>
"""


@pytest.fixture
def inputs(images):
    return images[:1]


def percent(share):
    """Return a share as the page writes it."""
    return f"{float(f'{100 * share:.3g}'):g}\u00a0%"


def content_of(page):
    found = re.search(r'id="content">(.*?)</script>', page.html, re.DOTALL)
    assert found is not None
    return json.loads(found[1])


def test_the_maps_are_those_of_the_methods(vit, inputs):
    content = content_of(ClassPage(vit, inputs, PHOTO, methods=["token-evidence", "gmar-l1", "rollout"], classes=3))
    logits = vit(inputs).logits[0]
    order = logits.argsort(descending=True)[:3].tolist()
    assert [row["score"] for row in content["classes"]] == pytest.approx(logits.softmax(0)[order].tolist(), rel=1e-4)
    evidence, gmar, rollout = content["methods"]
    for place, target in enumerate(order):
        for packed, method in ((evidence, TokenEvidence(vit)), (gmar, GMARAttribution(vit))):
            expected = 100 * method.relevance(inputs, target=target)[0].flatten().numpy()
            np.testing.assert_allclose(packed["maps"][place]["values"], expected, rtol=6e-3, atol=1e-6)
    assert len(rollout["maps"]) == 1  # the same for every class
    expected = 100 * TokenEvidence(vit).relevance(inputs, target=order[0], contrast=order[2])[0].flatten().numpy()
    np.testing.assert_allclose(evidence["contrasts"]["0,2"]["values"], expected, rtol=6e-3, atol=1e-6)
    assert set(evidence["contrasts"]) == {"0,1", "0,2", "1,0", "1,2", "2,0", "2,1"}
    assert rollout["contrasts"] == {}


def test_the_page_holds_all_that_it_needs_and_no_text_ends_it(vit, inputs):
    labels = [f"</script><b>{number}&" for number in range(10)]
    page = ClassPage(vit, inputs, PHOTO, labels)
    assert content_of(page)["classes"][0]["name"] in labels
    assert page.html.count("</script>") == 2
    addresses = set(re.findall(r"https?://[^\"'` ]+", page.html))
    assert addresses == {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xhtml"}
    assert page._repr_html_().startswith("<iframe srcdoc=")
    assert "<b>" not in page._repr_html_()


@pytest.mark.skipif(BROWSER is None, reason="needs Chromium, and finds none")
def test_a_page_in_a_browser(vit, inputs, tmp_path):
    names = [f"class {number}" for number in range(10)]
    methods, crop = ["token-evidence", "gmar-l1"], (10, 0, 50, 40)
    page = ClassPage(vit, inputs, PHOTO, names, methods, classes=4, rivals=3, crop=crop, proof=Mean())
    content = content_of(page)
    told = told_by(page.html.replace("</html>", DRIVER + "</html>"), tmp_path)
    rows, (method, _) = content["classes"], content["methods"]
    claims = [f"{row['name']}, {percent(row['score'])}" for row in rows]

    def strengths(packed):
        values = (np.array(packed["values"]) - packed["zero"]) / (packed["end"] - packed["zero"])
        return pytest.approx(0.85 * np.clip(values, -1, 1), abs=6e-4)

    assert told["names"] == [row["name"] for row in rows]
    assert told["first"] == [claims[0], strengths(method["maps"][0])]
    assert told["hovered"] == [claims[1], strengths(method["maps"][1])]
    assert told["left"] == told["escaped"] == claims[0]
    assert told["contrast"] == [f"{claims[0]}, rather than {rows[2]['name']}", strengths(method["contrasts"]["0,2"])]
    given = [packed["values"][5] for packed in method["maps"]]
    sentence, scores, is_framed = told["patch"]
    assert sentence.startswith(f"Row 2, column 2: most for {rows[int(np.argmax(given))]['name']}, ")
    assert [float(score.replace("−", "-").removesuffix(" %")) for score in scores] == pytest.approx(given)
    assert is_framed
    assert told["walked"] == 5  # to the first, down a row of four, to the right
    assert told["focused"] == [True, claims[1]]
    assert told["corner"] == pytest.approx([10 / 60, 0], abs=0.01)
    check_proof(told, content["proof"], rows[0]["name"], rows[0]["score"])


def check_proof(told, proof, name, whole):
    """Compare the sentences of the page with the scores that it holds."""
    k = proof["counts"][3]
    (sentence, caption, places), (low, median, high) = told["without"], proof["random"][0][0]
    value = proof["maps"][0][0]["scores"][0][3]
    verb = "falls" if value < whole else "rises"
    assert sentence.removesuffix(" That is within the range of random patches.") == (
        f"Without these {k} of 16 patches, “{name}” {verb} from {percent(whole)} to {percent(value)}; without {k} "
        f"random ones to {percent(median[3])} ({percent(low[3])} to {percent(high[3])}, 10 draws)."
    )
    assert sentence.endswith("patches.") == (low[3] <= value <= high[3])
    assert (caption, places) == (f"photo without {k} patches", k)
    for order, (sentence, caption, places) in enumerate((told["only"], told["otherOrder"])):
        value = percent(proof["maps"][order][0]["scores"][1][3])
        assert sentence.startswith(
            f"With only these {k} of 16 patches, “{name}” has {value}, with all {percent(whole)};"
        )
        assert (caption, places) == (f"photo with only {k} patches", 16 - k)
    (sentence, caption, places), is_disabled = told["unproved"]
    assert sentence.startswith("Patches were removed for the 3 likeliest classes")
    assert (caption, places, is_disabled) == ("photo", 0, True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"inputs": torch.rand(2, 3, 32, 32)}, r"inputs must be one image, .* but got 2"),
        ({"classes": 0}, "classes must be"),
        ({"methods": ["gmar"]}, "gmar"),
        ({"crop": (1, 2)}, r"crop must be left, top, right and bottom"),
        ({"crop": (0, 0, float("inf"), 9)}, r"crop must be left, top, right and bottom"),
        ({"methods": "gmar-l1"}, "methods must be a sequence of names, but got 'gmar-l1'"),
        ({"methods": ()}, "methods must be at least one name"),
        ({"labels": ["cat", "dog"]}, r"labels must name all 10 classes.* but got \['cat', 'dog'\]"),
        ({"labels": {3: "cat"}}, "labels must name all 10 classes"),
        ({"labels": "abcdefghij"}, "labels must name all 10 classes"),
        ({"labels": []}, "labels must name all 10 classes"),
        ({"forward_func": 3}, "forward_func must be a callable"),
        ({"forward_func": lambda pixels: pixels[:, 0, 0, 0]}, r"forward_func must return logits .* got shape \(1,\)"),
        ({"forward_func": lambda pixels: pixels[:, 0]}, r"forward_func must return logits .* got shape \(1, 32, 32\)"),
    ],
)
@pytest.mark.fault
def test_a_page_that_cannot_be_made(vit, inputs, options, message):
    with pytest.raises((TypeError, ValueError), match=message):
        ClassPage(vit, **{"inputs": inputs, "image": PHOTO, **options})


@pytest.mark.fault
def test_each_method_once_and_classes_beyond_the_names_by_number(vit, inputs):
    page = ClassPage(vit, inputs, PHOTO, methods=["rollout", "rollout"], forward_func=vit)
    assert page.html == ClassPage(vit, inputs, PHOTO, methods=["rollout"]).html
    more = ClassPage(
        vit, inputs, PHOTO, forward_func=lambda pixels: vit(pixels).logits.repeat(1, 2) * torch.arange(1, 21)
    )
    assert '"class 17"' in more.html
