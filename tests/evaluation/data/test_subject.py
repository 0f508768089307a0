"""Any module as a subject."""

import pytest
import torch
from torch import Tensor
from transformers import (
    ViTForImageClassification,
)

from captum_gmar import evaluate
from evaluation.small_data import FEW, Pairs, values_in_order


def test_any_module_by_its_forward_func(vit: ViTForImageClassification) -> None:
    class Wrapped(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = vit

        def forward(self, pixel_values: Tensor) -> dict[str, Tensor]:
            return {"scores": self.inner(pixel_values).logits}

    wrapped = Wrapped()
    found = evaluate(wrapped, Pairs(), **FEW, target="label", forward_func=lambda images: wrapped(images)["scores"])
    assert values_in_order(found) == pytest.approx(
        values_in_order(evaluate(vit, Pairs(), **FEW, target="label")), abs=1e-7
    )


def test_the_model_is_left_as_it_was(vit: ViTForImageClassification) -> None:
    before = {name: tensor.clone() for name, tensor in vit.state_dict().items()}
    evaluate(vit, Pairs(), **FEW)
    assert all(torch.equal(before[name], tensor) for name, tensor in vit.state_dict().items())
    assert not any(parameter.grad is not None for parameter in vit.parameters())
