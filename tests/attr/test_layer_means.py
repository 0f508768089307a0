"""Grad-SAM and LeGrad against attention and gradient that transformers gives."""

import copy

import torch
from eager import eager_attention, patches_of
from torch.testing import assert_close

from captum_gmar import GradSAM, LeGrad


def test_grad_sam_is_a_mean_over_layers_heads_and_rows(vit, images):
    eager = eager_attention(vit, images, target=2)
    expected = (eager.attention * eager.gradient.clamp(min=0)).mean((0, 2, 3))
    assert_close(GradSAM(vit.double()).relevance(images.double(), target=2), patches_of(expected))


def test_legrad_takes_each_layers_gradient_from_a_model_cut_after_it(vit, images):
    cut = []
    for layers in range(1, vit.config.num_hidden_layers + 1):
        shorter = copy.deepcopy(vit)
        del shorter.get_submodule(layer_list(shorter))[layers:]
        gradient = eager_attention(shorter, images, target=2).gradient
        cut.append(gradient[-1].clamp(min=0).mean((1, 2)))
    expected = patches_of(torch.stack(cut).mean(0))
    assert_close(LeGrad(vit.double()).relevance(images.double(), target=2), expected)


def layer_list(model):
    """The name of the list that holds the layers of a ViT."""
    (name,) = [name for name, module in model.named_modules() if isinstance(module, torch.nn.ModuleList)]
    return name


def test_last_layer_alone_is_the_whole_models_gradient(vit, images):
    expected = eager_attention(vit, images, target=2).gradient[-1].clamp(min=0).mean((1, 2))
    found = LeGrad(vit.double(), start_layer=-1).relevance(images.double(), target=2)
    assert_close(found, patches_of(expected))
