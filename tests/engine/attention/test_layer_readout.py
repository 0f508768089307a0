"""Layers with logits of their own."""

import threading

import pytest
from torch.testing import assert_close

from captum_gmar import LeGrad
from engine.attention.test_explain import TimmLike


def test_layers_that_cannot_be_told(images):
    with pytest.raises(ValueError, match=r"must have one nn.ModuleList or nn.Sequential of .*layers of one class"):
        LeGrad(TimmLike()).attribute(images, 3)


def test_other_threads_see_nothing(vit, images):
    """While one thread takes the layers apart, the model is whole in another."""
    expected, found = vit(images).logits, []

    def forward(pixels):
        thread = threading.Thread(target=lambda: found.append(vit(pixels).logits))
        thread.start()
        thread.join()
        return vit(pixels).logits

    LeGrad(vit, forward_func=forward).attribute(images, 3)
    assert_close(found[0], expected, rtol=0, atol=0)


def test_a_forward_func_that_legrad_cannot_use(vit, images):
    with pytest.raises(RuntimeError, match=r"must return 12 outputs, of 3 layers for 4 examples, but got 4\."):
        LeGrad(vit, forward_func=lambda inputs: vit(inputs).logits[:4]).attribute(images, 3)
