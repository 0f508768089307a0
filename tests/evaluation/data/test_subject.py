"""Any module as a subject."""

import PIL
import pytest
import torch

from captum_gmar import evaluate
from captum_gmar.evaluation.data.subject import sample_numbers, versions
from evaluation.small_data import FEW, Pairs, values_in_order


def test_any_module_by_its_forward_func(vit):
    class Wrapped(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = vit

        def forward(self, pixel_values):
            return {"scores": self.inner(pixel_values).logits}

    wrapped = Wrapped()
    found = evaluate(wrapped, Pairs(), **FEW, target="label", forward_func=lambda images: wrapped(images)["scores"])
    assert values_in_order(found) == pytest.approx(
        values_in_order(evaluate(vit, Pairs(), **FEW, target="label")), abs=1e-7
    )


def test_the_model_is_left_as_it_was(vit):
    before = {name: tensor.clone() for name, tensor in vit.state_dict().items()}
    evaluate(vit, Pairs(), **FEW)
    assert all(torch.equal(before[name], tensor) for name, tensor in vit.state_dict().items())
    assert not any(parameter.grad is not None for parameter in vit.parameters())


def test_samples_by_parts_and_limits():
    """Parts make up the whole, and a smaller limit is the beginning of a larger one."""
    whole = sample_numbers(10, None, seed=3)
    parts = [sample_numbers(10, None, seed=3, part=(part, 2)) for part in (1, 2)]
    assert [sorted(part) for part in parts] == [[0, 2, 4, 6, 8], [1, 3, 5, 7, 9]]
    assert sorted(whole) == list(range(10)) != whole
    assert sample_numbers(10, 4, seed=3) == whole[:4]
    assert sample_numbers(10, None, seed=4) != whole


def test_versions_are_those_that_numbers_depend_on():
    assert versions() | {"torch": torch.__version__, "pillow": PIL.__version__} == versions()
