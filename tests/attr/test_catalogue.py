"""The catalogue says of every method what is true of it."""

from functools import partial

import pytest
import torch
from families import FAMILIES
from field_families import FIELD_FAMILIES, swin
from methods import READERS

import captum_gmar
from captum_gmar import get_method, list_methods
from captum_gmar.attr._base import AttentionAttribution
from captum_gmar.attr.catalogue import CAPTUMS, COMPARED, EVALUATED, METHODS, ONLY_FOR, OURS, UNITLESS, find_method
from captum_gmar.attr.patch_relevance import relevance_of


def test_names():
    assert list_methods() == list(METHODS) == [*OURS, *CAPTUMS]
    assert all(name == entry.name for name, entry in METHODS.items())
    assert set(EVALUATED) <= set(COMPARED) <= set(METHODS)


def test_every_public_method_has_a_row():
    loaded = [getattr(make, "func", make) for make in (entry.load() for entry in METHODS.values())]
    public = [getattr(captum_gmar, name) for name in captum_gmar.__all__]
    ours = {kind for kind in public if isinstance(kind, type) and issubclass(kind, AttentionAttribution)}
    assert ours == {kind for kind in loaded if issubclass(kind, AttentionAttribution)}
    for name, kind in zip(METHODS, loaded, strict=True):
        assert issubclass(kind, AttentionAttribution) == (name in READERS), name


@pytest.mark.parametrize("name", METHODS)
def test_tokens_are_taken_where_it_is_said(vit, name):
    make = METHODS[name].load()
    if METHODS[name].takes_tokens:
        make(vit, tokens=["cls", (1, 2)])
    else:
        with pytest.raises(TypeError, match="tokens"):
            make(vit, tokens=["cls"])


@pytest.mark.parametrize("name", OURS)
def test_shares_and_no_others_are_at_most_1_in_sum_at_any_scale_of_the_logits(vit, images, name):
    method = get_method(name, vit, forward_func=lambda pixels: 1e6 * vit(pixels).logits)
    relevance = method.relevance(images, 0)
    assert (relevance.abs().sum((1, 2)) <= 1 + 1e-5).all() == (METHODS[name].share is not None)


@pytest.mark.parametrize("name", METHODS)
def test_the_class_enters_where_it_is_said(vit, images, name):
    torch.manual_seed(0)
    one, other = (get_method(name, vit).attribute(images.clone(), target=target) for target in (1, 5))
    assert torch.allclose(one, other, rtol=1e-3, atol=1e-7) != METHODS[name].reads_class
    assert METHODS[name].takes_contrast == (METHODS[name].reads_class and name in OURS)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gmar", r"captum_gmar.list_methods\(\), .* but got 'gmar'. Try gmar\+\+, gmar-l1, gmar-l2, "),
        ("layer-gradcam", "but got 'layer-gradcam'. Try layer-grad-cam"),
        ("nothing like it", "but got 'nothing like it'.$"),
        ("", "but got ''.$"),
        (3, "but got 3.$"),
    ],
)
def test_unknown_names(name, message):
    with pytest.raises(ValueError, match=message):
        find_method(name)
    assert find_method(" Gmar-L1 ") == "gmar-l1"


@pytest.mark.parametrize("name", METHODS)
def test_values_in_units_of_the_logit_grow_with_it_and_no_others(vit, images, name):
    entry, relevances = METHODS[name], []
    for factor in (1, 3):
        torch.manual_seed(0)
        method = get_method(name, vit, forward_func=lambda pixels, factor=factor: factor * vit(pixels).logits)
        relevances.append(relevance_of(method, vit, images, 0, batch_size=16))
    grows = torch.allclose(relevances[1], 3 * relevances[0], rtol=1e-3, atol=1e-6)
    assert grows == (entry.share is None and entry.unit != UNITLESS)


@pytest.mark.parametrize("name", [name for name in METHODS if METHODS[name].caveat == ONLY_FOR])
def test_what_shows_nothing_against_the_class_has_no_negative_values(vit, images, name):
    assert (get_method(name, vit).relevance(images, 0) >= 0).all()


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("gmar-l1", "relevance per patch, % of all tokens"),
        ("attention-evidence", "relevance per patch, % of all evidence"),
        ("gradient-rollout", "relevance per patch, no unit"),
        ("grad-sam", "relevance per patch, of the logit"),
        ("saliency", "relevance per patch, slope of the logit"),
    ],
)
def test_what_stands_beside_a_map(name, label):
    assert METHODS[name].label == label
    assert all(len(entry.caveat) < 62 and entry.caveat.endswith(".") for entry in METHODS.values())


FREE = {"saliency", "input-x-gradient", "integrated-gradients", "gradient-shap"}  # of any model


@pytest.mark.parametrize(
    ("make", "shape", "takes", "refuses"),
    [
        (
            partial(swin, "Swin", image_size=32, patch_size=4, depths=[1, 1], num_heads=[1, 1]),
            (3, 32, 32),
            {"gmar-l1", "gmar++", "rollout", "gradient-rollout", "token-evidence", "saliency", "occlusion"},
            {"gmar-forward", "rollout-additive", "legrad", "libra-fullgrad+", "grad-eclip", "layer-grad-cam"},
        ),
        (
            *(FIELD_FAMILIES["PVT"].make, (3, 64, 64)),
            {"attention-evidence", "token-evidence", "saliency", "integrated-gradients"},
            {"gmar-l1", "rollout", "legrad"},
        ),
        (
            *(FIELD_FAMILIES["VideoMAE"].make, (4, 3, 24, 24)),
            {"attention-evidence", *FREE},
            {"gmar-l1", "rollout", "occlusion", "layer-grad-cam"},
        ),
        (
            *(FIELD_FAMILIES["YOLOS"].make, (3, 16, 24)),
            {"attention-evidence", "saliency"},
            {"gmar-l1", "rollout", "legrad"},
        ),
        (FAMILIES["ViT"][0], (3, 32, 32), {*METHODS}, set()),
    ],
    ids=["Swin", "PVT", "VideoMAE", "YOLOS", "ViT"],
)
def test_methods_of_a_model(make, shape, takes, refuses):
    names = set(list_methods(make().eval(), torch.randn(2, *shape)))
    assert takes <= names
    assert names.isdisjoint(refuses)


def test_methods_of_half_a_question():
    with pytest.raises(TypeError, match="model requires inputs, and inputs a model"):
        list_methods(torch.nn.Linear(1, 1))
    with pytest.raises(TypeError, match=r"must be a tensor of what the model takes, but got list"):
        list_methods(torch.nn.Linear(1, 1), [1.0])
