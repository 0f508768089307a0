"""``--method``, ``--tokens`` and ``--contrast``: the numbers are those of the library and of Captum."""

import numpy as np
import pytest
import torch
from methods import NAMES
from PIL import Image

from captum_gmar import AttentionRollout, GMARAttribution, GradientRollout, LeGrad, TokenEvidence
from captum_gmar.attr.catalogue import CAPTUMS, METHODS
from captum_gmar.attr.methods import get_method
from captum_gmar.attr.patch_relevance import relevance_of
from captum_gmar.attr.published import PublishedGMAR
from captum_gmar.classifier import Classifier
from cli.commandline import USUAL, options, save_photo, written

# The names


def test_help_lists_every_name_whole(run):
    result = run("--help")
    assert result.status == 0
    listed = [name.strip() for line in result.out.splitlines() if line.startswith("    ") for name in line.split(",")]
    assert set(METHODS) <= set(listed)
    assert max(map(len, result.out.partition("\nmethods (token-evidence")[2].splitlines())) <= 80


# The numbers


def test_relevance_of_every_method(run, work, models, loaded):
    save_photo(work / "b.png", 1)
    arguments = ("photo.png", "b.png", "--model", models / "vit", "--target", "3", *options(METHODS))
    assert run(*arguments, "--output", "out", "--save-array", "a.npz").status == 0
    model, processor = loaded
    pixels = processor([Image.open(work / name) for name in ("photo.png", "b.png")], return_tensors="pt")[
        "pixel_values"
    ]

    options_of = {
        **{f"gmar-{norm}": GMARAttribution(model, norm=norm) for norm in ("l1", "l2")},
        **{f"gmar-{way}": GMARAttribution(model, recursion=way) for way in ("forward", "additive")},
        "rollout": AttentionRollout(model),
        **{f"rollout-{way}": AttentionRollout(model, recursion=way) for way in ("forward", "additive")},
        "gradient-rollout-gmar": GradientRollout(model, head_fusion="gmar"),
        "published-gmar": PublishedGMAR(model),
    }
    plain = [kind for kind in NAMES if kind not in (GMARAttribution, AttentionRollout)]
    ours = {**options_of, **{NAMES[kind].lower().replace(" ", "-"): kind(model) for kind in plain}}
    expected = {name: method.relevance(pixels, 3) for name, method in ours.items()}
    for name in CAPTUMS:
        expected[name] = relevance_of(get_method(name, model), model, pixels, 3, batch_size=32)
    with np.load(work / "a.npz") as arrays:
        assert arrays["method"].tolist() == list(METHODS)
        assert arrays["relevance"].shape == (len(METHODS), 2, 4, 4)
        for name, relevance in zip(METHODS, torch.from_numpy(arrays["relevance"]), strict=True):
            torch.testing.assert_close(relevance, expected.pop(name).detach(), rtol=1e-3, atol=1e-5)
        assert not expected


def test_batch_size_bounds_what_runs_at_once_and_changes_no_number(run, work, models, passes):
    save_photo(work / "b.png", 1)
    found = []
    for size in (2, 10):
        passes.clear()
        names = options(["integrated-gradients", "occlusion"])
        arguments = ("--output", "out", "--save-array", "a.npz", "--batch-size", size)
        assert run("photo.png", "b.png", "--model", models / "vit", *names, *arguments).status == 0
        assert max(passes) == size
        found.append(np.load(work / "a.npz")["relevance"])
    assert found[0] == pytest.approx(found[1], rel=1e-3, abs=1e-5)


@pytest.mark.parametrize(
    ("names", "first"),
    [(["legrad", "gmar-l2", "gmar-l1"], "l2"), (["gmar-l1", "gmar-l2"], "l1"), (["legrad", "gmar++"], None)],
)
def test_head_importance_is_of_the_first_method_that_weighs_heads(run, work, models, loaded, pixels, names, first):
    arguments = ("--target", "1", "--contrast", "2", "--save-array", "a.npz")
    assert run("photo.png", "--model", models / "vit", *options(names), *arguments).status == 0
    with np.load(work / "a.npz") as arrays:
        if first is None:
            assert "head_importance" not in arrays
        else:
            expected = GMARAttribution(loaded[0], norm=first).head_importance(pixels, 1, contrast=2)
            assert arrays["head_importance"] == pytest.approx(expected.numpy(), abs=1e-6)


def test_method_named_twice_counts_once(run, work, models):
    result = run("photo.png", "--model", models / "vit", *options(["Rollout", "rollout"]))
    assert "  method     rollout\n  picture    photo-rollout.png" in result.out


@pytest.mark.parametrize(
    ("arguments", "tokens", "told"),
    [
        (["cls"], "cls", "the CLS token"),
        (["patches"], "patches", "the mean of the patches"),
        (["3,0"], (3, 0), "patch 3,0"),
        (["1,2", "cls", " 0, 3 ", "1,2"], [(1, 2), "cls", (0, 3)], "patch 1,2, the CLS token and patch 0,3"),
    ],
)
def test_tokens(run, work, models, loaded, pixels, arguments, tokens, told):
    wanted = [part for argument in arguments for part in ("--tokens", argument)]
    common = ("--target", "0", "--save-array", "a.npz", *options(["gradient-rollout", "rollout"]))
    result = run("photo.png", "--model", models / "vit", *common, *wanted)
    assert f"  tokens     {told}\n" in result.out
    expected = torch.stack(
        [
            GradientRollout(loaded[0], tokens=tokens).relevance(pixels, 0),
            AttentionRollout(loaded[0], tokens=tokens).relevance(pixels),
        ]
    )
    assert np.load(work / "a.npz")["relevance"] == pytest.approx(expected.numpy(), rel=1e-4, abs=1e-7)


def test_contrast(run, work, models, loaded, pixels):
    common = ("--target", "0", "--save-array", "a.npz", *options(["gradient-rollout", "legrad"]))
    result = run("photo.png", "--model", models / "vit", *common, "--contrast", "tiger cat")
    lines = {line.split()[0]: line for line in result.out.splitlines()}
    assert lines["explained"].startswith("  explained  tabby, tabby cat (class 0), probability ")
    assert lines["contrast"].startswith("  contrast   tiger cat (class 3), probability ")
    found = np.load(work / "a.npz")["relevance"]
    for relevance, method in zip(found, (GradientRollout(loaded[0]), LeGrad(loaded[0])), strict=True):
        assert relevance == pytest.approx(method.relevance(pixels, 0, contrast=3).numpy(), rel=1e-3, abs=1e-7)
        assert relevance != pytest.approx(method.relevance(pixels, 0).numpy(), rel=1e-1, abs=1e-7)


def test_passes(run, work, models, loaded, pixels):
    """As an option of all methods, and in the name of one."""
    image = "photo.png", "--model", models / "vit", "--target", 1, "--save-array", "arrays.npz"
    expected = TokenEvidence(loaded[0], passes=3).relevance(pixels, 1)[0].numpy()
    named = ["--methods", "token-evidence@3,token-evidence"]
    for chosen in (["--methods", "token-evidence", "--passes", 3], named):
        done = run(*image, *chosen, "--output", "picture.png")
        assert done.status == 0, done
        assert "token-evidence@3" in done.out
        arrays = np.load("arrays.npz")
        assert arrays["method"][0] == "token-evidence@3"
        assert arrays["relevance"][0, 0] == pytest.approx(expected, abs=1e-6)


def test_image_whose_most_likely_class_is_the_contrast_fails_alone(run, work, models, monkeypatch):
    for seed, name in enumerate(("a.png", "b.png", "c.png")):
        save_photo(work / name, seed)
    logits = Classifier.logits

    def changed(self, pixels):
        """The second of three images, when they come together, is most likely of class 3."""
        bonus = torch.zeros(len(pixels), 4)
        bonus[:, 0] = 100
        if len(pixels) == 3:
            bonus[1, 3] = 200
        return logits(self, pixels) + bonus

    monkeypatch.setattr(Classifier, "logits", changed)
    arguments = ("a.png", "b.png", "c.png", "--model", models / "vit", "--output", "out", "--save-array", "a.npz")
    result = run(*arguments, "--contrast", "3")
    assert result.status == 1
    assert result.err.splitlines() == [
        "captum-gmar: error: b.png: its most likely class must differ from --contrast, but is the same. "
        "Pass another class as --target."
    ]
    assert written(work / "out") == [f"a-{USUAL}-rather-than-3.png", f"c-{USUAL}-rather-than-3.png"]
    with np.load(work / "a.npz") as arrays:
        assert arrays["image"].tolist() == ["a.png", "c.png"]
        assert arrays["target"].tolist() == [0, 0]


@pytest.mark.parametrize("name", METHODS)
def test_no_method_draws_what_is_no_number(run, work, models, name):
    result = run("photo.png", "--model", models / "nan", "--methods", name)
    if name in ("rollout", "rollout-forward", "rollout-additive", "raw-attention"):  # they do not read the logits
        assert result.status == 0
    else:
        assert result.is_error(f"the model's prediction cannot be explained: {name}: ")
        assert written(work) == ["out", "photo.png"]
