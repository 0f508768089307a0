"""What is drawn follows the controls. No browser is needed: widgets are objects whose values can be set."""

import sys
from base64 import b64decode
from io import BytesIO
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from captum_gmar import GMARAttribution, GradientRollout, record_attention
from captum_gmar.attr.catalogue import METHODS
from captum_gmar.inspection.explore import explore

PHOTO = Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8))


@pytest.fixture
def explorer(vit: Any, images: torch.Tensor) -> Any:
    pytest.importorskip("ipywidgets")
    return explore(vit, images[:1], PHOTO, methods={name: entry.load() for name, entry in METHODS.items()})


def choose(explorer: Any, **values: object) -> None:
    for name, value in values.items():
        explorer.controls[name.replace("_", " ")].value = value


def map_of(figure: Any, panel: int = 1) -> np.ndarray:
    return np.asarray(figure.axes[panel].images[-1].get_array())[::8, ::8]


def test_begins_with_the_class_the_model_thinks_likeliest(explorer: Any, vit: Any, images: torch.Tensor) -> None:
    best = int(vit(images[:1]).logits.argmax())
    assert explorer.controls["class"].value == best
    probability = 100 * float(vit(images[:1]).logits.detach().softmax(-1)[0, best])
    assert explorer.controls["class"].label == f"{vit.config.id2label[best]} ({probability:.3g} %)"
    assert explorer.draw().get_suptitle() == f"{explorer.controls['class'].label}, explained by gmar-l1"
    assert bytes(explorer.picture.value).startswith(b"\x89PNG")
    expected = 100 * GMARAttribution(vit).relevance(images[:1], best)[0]
    np.testing.assert_allclose(map_of(explorer.draw()), expected, rtol=1e-5)
    text = "relevance per patch, % of all tokens\nHardly depends on the class."
    assert explorer.draw().axes[1].images[0].colorbar.ax.get_xlabel() == text


def test_a_removed_patch_has_what_the_logit_loses_once(explorer: Any, vit: Any, images: torch.Tensor) -> None:
    choose(explorer, **{"class": 3, "method": "occlusion"})
    without = images[:1].clone()
    without[:, :, 8:16, 24:] = 0
    lost = float((vit(images[:1]).logits - vit(without).logits).detach()[0, 3])
    figure = explorer.draw()
    assert map_of(figure)[1, 3] == pytest.approx(lost, rel=1e-3)
    assert "relevance per patch, of the logit" in figure.axes[1].images[0].colorbar.ax.get_xlabel()


def test_draws_anew_whenever_something_is_chosen(explorer: Any, vit: Any, images: torch.Tensor) -> None:
    before = bytes(explorer.picture.value)
    choose(explorer, **{"class": 3, "method": "gradient-rollout"})
    assert bytes(explorer.picture.value) != before
    np.testing.assert_allclose(map_of(explorer.draw()), GradientRollout(vit).relevance(images[:1], 3)[0], rtol=1e-5)
    choose(explorer, row=2, column=1, from_patch=True)
    expected = GradientRollout(vit, tokens=(2, 1)).relevance(images[:1], 3)[0]
    np.testing.assert_allclose(map_of(explorer.draw()), expected, rtol=1e-5)
    assert explorer.draw().axes[0].patches[0].get_xy() == (7.5, 15.5)


def test_heads(explorer: Any, vit: Any, images: torch.Tensor) -> None:
    attention = record_attention(vit, images[:1], 3).attention[1][0]  # (H, T, T)
    choose(explorer, **{"class": 3, "view": "attention of heads", "layer": 1})
    importance = GMARAttribution(vit).head_importance(images[:1], 3)[0, 1]
    first = int(importance.argmax())
    figure = explorer.draw()
    assert figure.axes[1].get_title() == f"head {first}\nweight {importance[first]:.3g}"
    np.testing.assert_allclose(map_of(figure), attention[first, 0, 1:].view(4, 4), rtol=1e-5)
    choose(explorer, head=0, row=3, from_patch=True)
    np.testing.assert_allclose(map_of(explorer.draw()), attention[0, 1 + 12, 1:].view(4, 4), rtol=1e-5)
    figure = explorer.draw()
    assert figure.get_suptitle() == "layer 1, head 0"
    assert figure.axes[1].get_title() == "attention"
    assert explorer.message.value == ""


def test_what_cannot_be_is_said_and_then_forgotten(explorer: Any) -> None:
    choose(explorer, method="saliency")
    assert explorer.message.value == ""
    choose(explorer, from_patch=True)
    assert explorer.message.value == "saliency cannot be seen from a patch: it takes no tokens."
    assert explorer.picture.layout.display == "none"
    assert explorer.picture.value == b""
    choose(explorer, from_patch=False)
    assert explorer.message.value == ""
    assert explorer.picture.layout.display is None
    assert explorer.picture.value


@pytest.mark.parametrize(
    ("values", "idle"),
    [
        ({}, {"layer", "head", "row", "column"}),
        ({"from_patch": True}, {"layer", "head"}),
        ({"view": "attention of heads"}, {"method", "row", "column"}),
        ({"view": "attention of heads", "head": 1, "from_patch": True}, {"method", "class"}),
    ],
)
def test_controls_that_do_nothing_are_grey(explorer: Any, values: dict[str, Any], idle: set[str]) -> None:
    choose(explorer, **values)
    assert {name for name, control in explorer.controls.items() if control.disabled} == idle
    before = bytes(explorer.picture.value)
    for name in idle:  # and it is true that they do nothing
        control = explorer.controls[name]
        options = [value for _, value in control.options] if name == "class" else getattr(control, "options", None)
        control.value = options[-1] if options else control.max
    assert bytes(explorer.picture.value) == before


def test_a_page_without_kernel_shows_the_picture(explorer: Any) -> None:
    shown = explorer._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in shown
    assert b64decode(shown["image/png"]) == bytes(explorer.picture.value)
    choose(explorer, method="saliency", from_patch=True)  # which cannot be drawn
    assert "image/png" not in explorer._repr_mimebundle_()


def test_picture_is_sharp_and_no_wider_than_the_page(explorer: Any) -> None:
    with Image.open(BytesIO(bytes(explorer.picture.value))) as picture:
        assert picture.width == pytest.approx(2 * int(explorer.picture.width), abs=2)
    assert explorer.picture.layout.max_width == "100%"


def test_output_that_is_alone_has_no_probability(make_vit: Any, images: torch.Tensor) -> None:
    pytest.importorskip("ipywidgets")
    vit = make_vit(num_labels=1)
    logit = float(vit(images[:1]).logits.detach()[0, 0])
    label = explore(vit, images[:1], PHOTO).controls["class"].label
    assert label == f"LABEL_0 (logit {logit:.3g})".replace("-", "−")
    vit.config.problem_type = "multi_label_classification"
    label = explore(vit, images[:1], PHOTO).controls["class"].label
    assert label == f"LABEL_0 ({100 / (1 + np.exp(-logit)):.3g} %)"


def test_names_of_classes(vit: Any, images: torch.Tensor) -> None:
    pytest.importorskip("ipywidgets")
    explorer = explore(vit, images[:1], PHOTO, labels=[f"name {index}" for index in range(10)])
    assert {label.split(" (")[0] for label, _ in explorer.controls["class"].options} == {f"name {i}" for i in range(10)}


def test_one_image(vit: Any, images: torch.Tensor) -> None:
    pytest.importorskip("ipywidgets")
    with pytest.raises(ValueError, match=r"inputs must be one image, \(1, channels, height, width\)\. Got 4 instead"):
        explore(vit, images, PHOTO)


def test_without_ipywidgets(vit: Any, images: torch.Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    with pytest.raises(ImportError, match=r'explore needs ipywidgets.* clone .*pip install -e "\.\[notebook\]"'):
        explore(vit, images[:1], PHOTO)
