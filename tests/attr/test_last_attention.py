"""CDAM against a gradient by autograd. Grad-ECLIP's formula is in test_methods."""

import torch
from torch.testing import assert_close

from captum_gmar import CDAM


def test_cdam_is_gradient_times_what_the_last_norm_gives(vit, images):
    vit, images = vit.double(), images.double()
    layers = [module for name, module in vit.named_modules() if name.endswith("layernorm_before")]
    kept = []
    hook = layers[-1].register_forward_hook(lambda module, args, output: kept.append(output))
    logits = vit(images).logits
    hook.remove()
    (gradient,) = torch.autograd.grad(logits[:, 2].sum(), kept)
    expected = (kept[0] * gradient).sum(-1)[:, -16:].view(-1, 4, 4)
    assert_close(CDAM(vit).relevance(images, target=2), expected.detach())
