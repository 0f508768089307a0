"""Memory that layers share."""

import torch

from captum_gmar.engine.kernels import workspace
from captum_gmar.engine.kernels.layer import AttentionLayer
from engine.kernels.test_recompute import make_tap, tensors


def test_layers_take_the_same_memory():
    *qkv, grad_output = tensors()
    memory, pointers = workspace.Workspace(), set()

    def note(part, blocks):
        pointers.update(block.attention.data_ptr() for block in blocks)

    for _ in range(2):
        layer = AttentionLayer(*qkv[:2], None, None)
        output = make_tap(note, workspace=memory).attend(layer, qkv[2])
        torch.autograd.grad(output, qkv, grad_output)
    assert len(pointers) == 1
