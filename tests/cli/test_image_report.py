"""The pictures of ``captum-gmar explain``: they say whose map it is and what its numbers are, and are known again."""

from pathlib import Path

import numpy as np
import pytest
import torch
from pictures import ticks

from captum_gmar.attr.catalogue import METHODS
from captum_gmar.classifier import Classifier
from captum_gmar.classifier.photo_frame import PhotoView
from captum_gmar.cli.image_report import ExplainedImage, Question, draw_picture
from cli.commandline import options, save_photo, written

SHARE = "relevance per patch, % of all tokens"


@pytest.fixture
def picture(loaded, pixels):
    """The picture of an image and a question."""

    def make(*names, contrast=None, tokens=(), relevance=None):
        if relevance is None:
            relevance = torch.arange(16.0).reshape(4, 4).repeat(len(names), 1, 1)
        explained = ExplainedImage(Path("folder/photo.png"), torch.zeros(4), [3], relevance, None)
        view = PhotoView(pixels[0].sigmoid(), None)
        return draw_picture(explained, Question(names, None, contrast, tokens), view, Classifier(*loaded))

    return make


def test_one_method_is_named_above_its_map(picture):
    figure = picture("gmar-l1")
    assert figure.get_suptitle() == "photo.png: tiger cat (class 3), probability 25.0%, explained by gmar-l1"
    assert [panel.get_title() for panel in figure.axes] == ["photo", "patches", "smooth"]
    assert figure.axes[1].get_xlabel() == f"{SHARE}\nHardly depends on the class."
    assert ticks(figure.axes[1]) == ["0", "750", "1.5e+03"]


@pytest.mark.parametrize(
    ("name", "label"),
    [("grad-sam", "relevance per patch, of the logit"), ("rollout-additive", "relevance per patch, no unit")],
)
def test_map_that_is_no_share_is_not_in_percent(picture, name, label):
    panel = picture(name).axes[1]
    assert panel.get_xlabel() == f"{label}\n{METHODS[name].caveat}"
    assert ticks(panel) == ["0", "7.5", "15"]


@pytest.mark.parametrize(
    ("names", "title"),
    [
        (["rollout"], "photo.png: rollout, the same for every class"),
        (["rollout", "raw-attention"], "photo.png: rollout and raw-attention, the same for every class"),
    ],
)
def test_a_map_that_no_class_enters_is_not_titled_as_if(picture, names, title):
    assert picture(*names).get_suptitle() == title


def test_several_methods_are_named_above_their_maps(picture):
    figure = picture("rollout", "legrad", "gmar++")
    assert figure.get_suptitle() == "photo.png: tiger cat (class 3), probability 25.0%"
    assert [panel.get_title() for panel in figure.axes] == [
        "photo",
        "rollout, the same for every class",  # which the title names
        "legrad",
        "gmar++",
    ]
    assert [panel.get_xlabel().replace("\n", " ") for panel in figure.axes[1:]] == [
        f"{label} {METHODS[name].caveat}"
        for name, label in (("rollout", SHARE), ("legrad", "relevance per patch, of the logit"), ("gmar++", SHARE))
    ]
    assert [ticks(panel)[-1] for panel in figure.axes[1:]] == ["1.5e+03", "15", "1.5e+03"]


def test_the_patch_where_relevance_begins_is_framed(picture):
    plain, framed = picture("gmar-l1"), picture("gmar-l1", tokens=[(1, 2)])
    pixels, others = (np.asarray(figure.axes[0].images[0].get_array()) for figure in (framed, plain))
    rows, columns = (pixels != others).any(-1).nonzero()
    # Of 4×4 patches of 8×8 pixels, with a line of one pixel around.
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (7, 16, 15, 24)
    assert "the framed patch itself keeps 600" in framed.axes[1].get_xlabel()


def test_title_tells_contrast_and_tokens(picture):
    figure = picture("gmar-l1", contrast=1, tokens=[(1, 2), "cls"])
    assert figure.get_suptitle().replace("\n", " ") == (
        "photo.png: tiger cat (class 3), probability 25.0%, rather than crane (class 1), probability 25.0%, "
        "explained by gmar-l1, relevance from patch 1,2 and the CLS token"
    )


def test_signed_map_has_its_colours_around_zero(picture):
    for name in ("saliency", "rollout"):
        figure = picture("occlusion", name, relevance=torch.stack([torch.eye(4) - 0.25, torch.eye(4)]))
        signed, other = (ticks(panel) for panel in figure.axes[1:])
        assert (signed, other[0]) == (["−0.75", "0", "0.75"], "0")


def test_pictures_are_named_after_the_method_and_known_again(run, work, models):
    photos = work / "photos"
    photos.mkdir()
    for seed, name in enumerate(("a.png", "holiday-comparison.png", "paper-gmar-l1.png", "b.jpg")):
        save_photo(photos / name, seed)
    (photos / "damaged-gmar-l1.png").write_bytes(b"\x89PNG no")
    common = ("photos", "--model", models / "vit", "--output", "photos")
    users = ["a.png", "b.jpg", "damaged-gmar-l1.png", "holiday-comparison.png", "paper-gmar-l1.png"]
    made = []
    for names, mark in ((["rollout", "saliency"], "comparison-rollout-saliency"), (["gmar++"], "gmar++")):
        result = run(*common, *options(names))
        assert result.status == 1
        assert [line.split(": ")[2].split()[0] for line in result.err.splitlines()] == ["photos/damaged-gmar-l1.png"]
        made += [f"{stem}-{mark}.png" for stem in ("a", "b", "holiday-comparison", "paper-gmar-l1")]
        assert written(photos) == sorted(users + made)


def test_users_photo_is_never_replaced_by_a_picture_of_another(run, work, models):
    save_photo(work / "out" / "a.png")
    save_photo(work / "out" / "a-comparison-rollout-legrad.png", 1)
    before = (work / "out" / "a-comparison-rollout-legrad.png").read_bytes()
    result = run("out", "--model", models / "vit", *options(["rollout", "legrad"]), "--output", "out")
    assert result.is_error("--output must not be the image itself, but got 'out/a-comparison-rollout-legrad.png'.")
    assert (work / "out" / "a-comparison-rollout-legrad.png").read_bytes() == before
