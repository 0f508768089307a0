"""Head outputs against the inputs of the model's output projections."""

import torch
from torch.testing import assert_close

from ablation.test_heads import projections
from captum_gmar.ablation.heads import head_outputs


def test_every_layer_s_outputs_are_its_projection_s_inputs(vit, images):
    inputs, captured = [], []
    hooks = [p.register_forward_pre_hook(lambda module, args: inputs.append(args[0])) for p in projections(vit)]
    with torch.no_grad(), head_outputs(vit, lambda layer: lambda output: captured.append((layer, output)) or output):
        vit(images)
    for hook in hooks:
        hook.remove()
    assert [layer for layer, _ in captured] == list(range(vit.config.num_hidden_layers)) == list(range(len(inputs)))
    for (_, output), expected in zip(captured, inputs, strict=True):
        assert_close(output.transpose(1, 2).flatten(2), expected)  # (N, H, T, D) → (N, T, H · D)


def test_a_changed_layer_is_what_its_projection_makes_of_the_change(vit, images):
    with torch.no_grad(), head_outputs(vit, lambda layer: (lambda output: 2 * output) if layer == 1 else None):
        changed = vit(images).logits
    hook = projections(vit)[1].register_forward_pre_hook(lambda module, args: (2 * args[0],))
    with torch.no_grad():
        expected = vit(images).logits
    hook.remove()
    assert_close(changed, expected)
