"""Relevance of patches by any method, worked by hand."""

import captum.attr
import numpy as np
import pytest
import torch
from torch.testing import assert_close

from captum_gmar import GMARAttribution
from captum_gmar.attr.captum_methods import PatchOcclusion
from captum_gmar.attr.patch_relevance import check_methods, relevance_of


def test_pixels_are_summed_over_their_patch(vit, images):
    relevance = relevance_of(lambda inputs, target: target * inputs, vit, images, 3, batch_size=4)
    assert relevance.shape == (4, 4, 4)
    assert_close(relevance[1, 2, 3], 3 * images[1, :, 16:24, 24:32].sum())


def test_occlusion_is_the_fall_of_the_logit_once_a_patch(vit, images):
    hidden = images.clone()
    hidden[:, :, 8:16, 0:8] = 0
    with torch.no_grad():
        expected = (vit(images).logits - vit(hidden).logits)[:, 1]
    relevance = relevance_of(PatchOcclusion(vit), vit, images, 1, batch_size=4)
    assert_close(relevance[:, 1, 0], expected)


def test_our_methods_give_their_own(vit, images):
    gmar = GMARAttribution(vit)
    assert torch.equal(relevance_of(gmar, vit, images, 2, batch_size=4), gmar.relevance(images, 2))


@pytest.mark.fault
def test_random_methods_draw_the_same_each_time(vit, images):
    """Gradient SHAP draws from numpy and torch; the other method from torch alone."""
    shap = captum.attr.GradientShap(lambda inputs: vit(inputs).logits)

    def of_shap(inputs, target):
        return shap.attribute(inputs, target=target, baselines=torch.zeros_like(inputs))

    for method in (of_shap, lambda inputs, target: torch.randn_like(inputs)):
        states = np.random.get_state()[1].copy(), torch.get_rng_state()
        first, second = (relevance_of(method, vit, images, 2, batch_size=4) for _ in range(2))
        assert torch.equal(first, second)
        assert first.any()
        assert (np.random.get_state()[1] == states[0]).all()
        assert torch.equal(torch.get_rng_state(), states[1])


@pytest.mark.parametrize("given", [{3: len}, {"mine": 3}, {"mine": GMARAttribution}])
def test_what_is_no_method_or_name(given):
    with pytest.raises(TypeError, match="methods"):
        check_methods(given)
