"""Relevance, logits and head importance of one pass are those of calls one by one."""

from functools import partial

import pytest
import torch
from methods import METHODS as ROWS
from methods import PUBLIC, READERS
from torch.testing import assert_close

from captum_gmar import AttentionRollout, GMARAttribution
from captum_gmar.attr.catalogue import CAPTUMS, METHODS
from captum_gmar.attr.explainer import Explainer
from captum_gmar.attr.methods import get_method

TARGETS = torch.tensor([[3, 0], [0, 9], [9, 9], [5, 1]])  # (N, K)
SLOW = {"occlusion", "feature-ablation", "integrated-gradients"}


def most_likely(logits, k=2):
    return logits.topk(k).indices


@pytest.fixture
def passes(vit):
    """How many examples went forward through the model, pass by pass."""
    examples = []
    vit.register_forward_hook(lambda module, args, output: examples.append(len(args[0])))
    return examples


@pytest.fixture
def make(vit):
    return partial(Explainer, model=vit, forward_func=lambda pixels: vit(pixels).logits)


class TestOfOneMethod:
    @pytest.mark.parametrize("name", ROWS)
    def test_all_of_one_pass(self, name, vit, images, passes):
        with torch.no_grad():
            logits = vit(images).logits
        method = ROWS[name].make(vit)
        passes.clear()
        maps = method.explain(images, most_likely)
        assert passes == [4]
        assert_close(maps.logits, logits, rtol=1e-5, atol=1e-5)
        assert not maps.logits.requires_grad
        assert torch.equal(maps.targets, most_likely(logits))
        assert_close(maps.relevance, method.explain(images, maps.targets).relevance, rtol=0, atol=0)
        assert (maps.head_importance is not None) == isinstance(method, GMARAttribution)

    @pytest.mark.parametrize("name", PUBLIC)
    def test_batches_arguments_and_contrast(self, name, vit, images):
        method = ROWS[name].make(vit, forward_func=lambda x, shift: vit(x + shift).logits)
        shift = torch.arange(4.0)[:, None, None, None]
        options = {"contrast": vit(images + shift).logits.argmax(1)}  # no class of those that are explained
        maps = method.explain(images, lambda logits: logits.topk(2, largest=False).indices, shift, 3, **options)
        assert_close(maps.logits, vit(images + shift).logits.detach(), rtol=1e-5, atol=1e-5)
        assert torch.equal(maps.targets, maps.logits.topk(2, largest=False).indices)
        expected = method.explain(images, maps.targets, shift, 3, **options).relevance
        assert_close(maps.relevance, expected, rtol=0, atol=0)

    def test_what_is_wrong_is_said(self, vit, images):
        with pytest.raises(TypeError, match="must return a tensor or an output with a `logits` tensor"):
            AttentionRollout(vit.vit).explain(images, most_likely)
        with pytest.raises(ValueError, match=r"but got shape \(3, 2\)"):
            GMARAttribution(vit).explain(images, lambda logits: logits[:3].topk(2).indices)
        with pytest.raises(ValueError, match="target must be from 0 to 9, as there are 10 classes, but got 13"):
            GMARAttribution(vit).explain(images, lambda logits: TARGETS + 10)


class TestOfSeveral:
    @pytest.mark.parametrize("name", READERS)
    def test_one_method_of_ours_runs_the_model_once(self, name, make, vit, images, passes):
        maps = make([name]).explain(images, most_likely, contrast=None)
        assert passes == [4]
        assert maps.relevance.shape == (1, 4, 2, 4, 4)
        expected = get_method(name, vit).explain(images, maps.targets).relevance
        assert_close(maps.relevance[0], expected, rtol=0, atol=0)

    def test_several(self, make, vit, images, passes):
        names = ["saliency", "rollout", "legrad", "gmar-l2", "gmar-l1"]
        unlikely = vit(images).logits.argmin(1)
        passes.clear()
        maps = make(names, batch_size=4).explain(images, most_likely, contrast=unlikely)
        assert passes == 6 * [4]  # saliency once for each class
        for name, relevance in zip(names, maps.relevance, strict=True):
            method = get_method(name, vit)
            if name == "saliency":
                by_class = [method.attribute(images, target=classes) for classes in maps.targets.unbind(1)]
                expected = torch.stack(by_class, 1).unfold(-2, 8, 8).unfold(-2, 8, 8).sum((2, 5, 6))
            else:
                expected = method.explain(images, maps.targets, contrast=unlikely).relevance
            assert_close(relevance, expected, rtol=1e-5, atol=1e-7)
        gmar = GMARAttribution(vit, norm="l2")
        expected = gmar.explain(images, maps.targets, contrast=unlikely).head_importance
        assert_close(maps.head_importance, expected, rtol=1e-5, atol=1e-7)

    @pytest.mark.parametrize("name", [name for name in CAPTUMS if name not in SLOW])
    def test_captums_alone_take_classes_one_by_one(self, name, make, vit, images):
        explainer = make([name], batch_size=1)
        maps = explainer.explain(images, TARGETS)
        expected = [explainer.relevance(name, images, classes) for classes in TARGETS.unbind(1)]
        assert_close(maps.relevance, torch.stack(expected, 1)[None], rtol=0, atol=0)
        assert_close(maps.logits, vit(images).logits.detach())
        assert maps.head_importance is None

    def test_tokens(self, make, vit, images):
        maps = make(["rollout"], tokens=[(1, 2)]).explain(images, TARGETS)
        assert_close(maps.relevance[0, :, 1], AttentionRollout(vit, tokens=(1, 2)).relevance(images))

    @pytest.mark.parametrize("names", [["gmar-l1"], ["saliency"], ["rollout", "gmar-l1"]])
    def test_errors_begin_with_the_method(self, names, make, images):
        with pytest.raises(RuntimeError, match=rf"^{names[-1]}: "):
            make(names).explain(images, TARGETS + 10)

    def test_every_name(self, make):
        assert list(make(METHODS).methods) == list(METHODS)
