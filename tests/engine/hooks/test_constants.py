"""Arguments as constants."""

import torch
from torch import nn

from captum_gmar.engine.hooks.constants import detach_parameters, detach_tensor, map_nested


def test_parameters_at_any_depth_are_detached_and_other_tensors_are_not():
    parameter, tensor = nn.Parameter(torch.ones(2)), torch.ones(2, requires_grad=True)
    arguments = (tensor, [parameter, {"weight": parameter, "scale": 2.0}], None)
    plain, (first, named), nothing = detach_parameters(arguments)
    assert plain is tensor
    assert nothing is None
    assert not first.requires_grad
    assert first.data_ptr() == named["weight"].data_ptr() == parameter.data_ptr()
    assert detach_parameters((tensor, 3)) == (tensor, 3)
    assert not detach_parameters(parameter).requires_grad


def test_any_tensor_is_detached_and_other_arguments_are_unchanged():
    assert not detach_tensor(torch.ones(1, requires_grad=True)).requires_grad
    assert detach_tensor("mean") == "mean"


def test_a_function_of_nested_leaves():
    assert map_nested(lambda n: n + 1, [1, (2, {"a": 3})]) == [2, (3, {"a": 4})]
