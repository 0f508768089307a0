"""CDAM and Grad-ECLIP against gradients by autograd, and against each other's definition."""

import torch
from torch.testing import assert_close

from captum_gmar import CDAM, GradECLIP


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


def test_grad_eclip_by_queries_keys_and_values(vit, images):
    """CLS alone has a gradient: its cosine with each patch's key, from 0 to 1, times the value along the gradient."""
    vit, images = vit.double(), images.double()
    parts = {}

    def keep(name):
        return lambda module, args, output: parts.update({name: output})

    def last(ending):
        return [module for name, module in vit.named_modules() if name.endswith(ending)][-1]

    dense = last("attention.output.dense") if has(vit, "attention.output.dense") else last("o_proj")
    hooks = [last(names).register_forward_hook(keep(key)) for key, names in NAMES[has(vit, "q_proj")].items()]
    hooks.append(dense.register_forward_pre_hook(lambda module, args: parts.update(output=args[0])))
    logits = vit(images).logits
    for hook in hooks:
        hook.remove()
    (gradient,) = torch.autograd.grad(logits[:, 2].sum(), [parts["output"]])
    similarity = torch.cosine_similarity(parts["query"][:, :1], parts["key"][:, -16:], dim=-1)  # (N, P)
    low, high = similarity.aminmax(dim=-1, keepdim=True)
    given = torch.einsum("nc,npc->np", gradient[:, 0], parts["value"][:, -16:])
    expected = ((similarity - low) / (high - low) * given).clamp(min=0)
    assert_close(GradECLIP(vit).relevance(images, target=2), expected.view(-1, 4, 4).detach())


NAMES = {
    False: {"query": "attention.query", "key": "attention.key", "value": "attention.value"},
    True: {"query": "q_proj", "key": "k_proj", "value": "v_proj"},
}


def has(model, ending):
    """Return whether a module's name ends so, which differs between versions of transformers."""
    return any(name.endswith(ending) for name, _ in model.named_modules())
