"""What is drawn follows the controls. No browser is needed: widgets are objects whose values can be set."""

import sys
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from captum_gmar import GMARAttribution, GradientRollout, methods, record_attention
from captum_gmar.inspection.explore import explore

PHOTO = Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8))


@pytest.fixture
def explorer(vit: Any, images: torch.Tensor) -> Any:
    pytest.importorskip("ipywidgets")
    return explore(vit, images[:1], PHOTO, methods=methods())


def choose(explorer: Any, **values: object) -> None:
    for name, value in values.items():
        explorer.controls[name.replace("_", " ")].value = value


def map_of(figure: Any, panel: int = 1) -> np.ndarray:
    return np.asarray(figure.axes[panel].images[-1].get_array())[::8, ::8]


def test_begins_with_the_class_the_model_thinks_likeliest(explorer: Any, vit: Any, images: torch.Tensor) -> None:
    best = int(vit(images[:1]).logits.argmax())
    assert explorer.controls["class"].value == best
    assert explorer.controls["class"].label.startswith(f"{vit.config.id2label[best]} (")
    assert bytes(explorer.picture.value).startswith(b"\x89PNG")
    expected = GMARAttribution(vit).relevance(images[:1], best)[0]
    np.testing.assert_allclose(map_of(explorer.draw()), expected, rtol=1e-5)


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
    assert explorer.draw().get_suptitle() == "layer 1, head 0"
    assert explorer.message.value == ""


def test_what_cannot_be_is_said_and_then_forgotten(explorer: Any) -> None:
    choose(explorer, method="saliency")
    assert explorer.message.value == ""
    choose(explorer, from_patch=True)
    assert explorer.message.value == "saliency cannot be seen from a patch: it takes no tokens."
    choose(explorer, from_patch=False)
    assert explorer.message.value == ""


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
    with pytest.raises(ImportError, match=r'explore needs ipywidgets.*pip install "captum_gmar\[notebook\]"'):
        explore(vit, images[:1], PHOTO)
