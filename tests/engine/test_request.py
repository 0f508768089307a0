"""Memory that does not hold a batch: it is explained in halves, with the numbers of batches of that size."""

import pytest
import torch
from methods import READERS
from torch.testing import assert_close

from captum_gmar.attr.methods import get_method

TARGETS = torch.tensor([3, 0, 9, 5])
NO_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB."),
    RuntimeError(
        "[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: you tried to 99 bytes."
    ),
]


def limited(model, examples, error, when):
    """The model in a machine that holds so many examples, forward or on the way back."""

    def fail(*_):
        raise error

    def check(module, args, output):
        tokens = output if isinstance(output, torch.Tensor) else output[0]
        if len(tokens) > examples:
            fail() if when == "forward" else tokens.register_hook(fail)

    return model.vit.layernorm.register_forward_hook(check)


def hooks(model):
    return [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules()]


@pytest.mark.parametrize("error", NO_MEMORY, ids=["device", "CPU"])
@pytest.mark.parametrize("when", ["forward", "backward"])
@pytest.mark.parametrize("name", ["gmar-l1", "gmar++", "legrad", "attention-evidence", "attcat"])
def test_fewer_at_once_give_the_same_numbers(make_vit, images, name, when, error):
    model = make_vit()
    method, weights, before = get_method(name, model), [p.clone() for p in model.parameters()], hooks(model)
    expected = method.relevance(images, TARGETS, internal_batch_size=2)
    examples = 3 * model.config.num_hidden_layers if method.plan.separate else 3  # all leave the last
    hook = limited(model, examples, error, when)
    assert_close(method.relevance(images, TARGETS), expected, rtol=0, atol=0)
    hook.remove()
    assert hooks(model) == before
    assert all(torch.equal(p, weight) and p.grad is None for p, weight in zip(model.parameters(), weights, strict=True))
    assert torch.get_default_dtype() == torch.float32
    assert_close(method.relevance(images, TARGETS, internal_batch_size=2), expected, rtol=0, atol=0)


def test_classes_are_those_that_were_chosen_where_memory_sufficed(make_vit, images):
    model = make_vit()
    method = get_method("gmar-l1", model)
    expected = method.explain(images, lambda logits: logits.topk(2).indices, internal_batch_size=1)
    limited(model, 1, NO_MEMORY[1], "backward")
    found = method.explain(images, lambda logits: logits.topk(2).indices)
    for part, correct in zip(found, expected, strict=True):
        assert_close(part, correct, rtol=0, atol=0)


@pytest.mark.parametrize("name", READERS)
def test_not_even_one_example(make_vit, images, name):
    model = make_vit()
    method, before = get_method(name, model), hooks(model)
    hook = limited(model, 0, NO_MEMORY[0], "forward")
    with pytest.raises(
        torch.OutOfMemoryError, match=r"cpu must have memory for one example .* \(1, 3, 32, 32\).* allocate 20\.00 MiB"
    ):
        method.relevance(images, TARGETS)
    hook.remove()
    assert hooks(model) == before


def test_other_errors_are_not_tried_again(make_vit, images):
    model, passes = make_vit(), []
    model.vit.layernorm.register_forward_hook(lambda *_: passes.append(1))
    limited(model, 0, RuntimeError("no such kernel"), "forward")
    with pytest.raises(RuntimeError, match="no such kernel"):
        get_method("gmar-l1", model).relevance(images, TARGETS)
    assert len(passes) == 1
