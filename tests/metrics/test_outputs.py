"""Targets in every form, and rejected outputs."""

import pytest
from torch import tensor
from torch.testing import assert_close

from captum_gmar.metrics import Mean, deletion, insertion


@pytest.mark.parametrize("target", [(1, 2), (0, -1), (3, 1, 0)])
def test_a_target_of_outputs_of_more_dimensions(target, classifier, photos, attributions):
    def queries(inputs):
        return classifier(inputs).repeat(1, 12).view(len(inputs), *(4, 3, 5)[: len(target)], -1)[..., 0]

    def one(inputs):
        return queries(inputs)[(slice(None), *target)]

    options = {"patch_size": 4, "steps": 6, "removal": Mean(), "softmax": False}
    for curve in (deletion, insertion):
        found = curve(queries, photos, attributions, target, **options)
        assert_close(found.curve, curve(one, photos, attributions, **options).curve)
    with pytest.raises(
        ValueError, match=r"target must be within outputs \(examples, \.\.\.\) of sizes .* but got \(9, 9\)"
    ):
        deletion(queries, photos, attributions, (9, 9), **options)
    with pytest.raises(ValueError, match="softmax must be False"):
        deletion(queries, photos, attributions, target, **{**options, "softmax": True})


def test_logits_and_probabilities(classifier, photos, attributions):
    def probabilities(inputs):
        return classifier(inputs).softmax(1)

    options = {"patch_size": 4, "steps": 4}
    followed = deletion(classifier, photos, attributions, 2, **options).curve
    assert_close(deletion(probabilities, photos, attributions, 2, softmax=False, **options).curve, followed)
    logits = deletion(classifier, photos, attributions, 2, softmax=False, **options).curve
    assert_close(logits[:, 0], classifier(photos)[:, 2].detach())


@pytest.mark.parametrize("target", [0, -1, tensor(4), tensor([2]), (3,)])
def test_one_target_for_all_examples(classifier, photos, attributions, target):
    index = int(target[0] if isinstance(target, tuple) else target)
    found = deletion(classifier, photos, attributions, target, patch_size=4, steps=2).curve
    assert_close(found[:, 0], classifier(photos).softmax(1)[:, index].detach())


@pytest.mark.parametrize("target", [[0, 4, -1], tensor([0, 4, 4]), [(0,), (4,), (4,)], tensor([[0], [4], [4]])])
def test_a_target_for_each_example(classifier, photos, attributions, target):
    found = deletion(classifier, photos, attributions, target, patch_size=4, steps=2).curve
    assert_close(found[:, 0], classifier(photos).softmax(1)[range(3), [0, 4, 4]].detach())


@pytest.mark.parametrize("curve", [deletion, insertion])
@pytest.mark.parametrize(
    ("forward_func", "target", "error", "message"),
    [
        (lambda inputs: {"logits": inputs}, 1, TypeError, "forward_func must return a tensor .* but got dict"),
        (lambda inputs: inputs, 1, ValueError, r"outputs \(4, classes\), but got \(4, 3"),
        (lambda inputs: inputs.mean((2, 3))[:1], 1, ValueError, r"outputs \(4, classes\), but got \(1, 3\)"),
        (lambda inputs: inputs.mean((2, 3)) / 0 * 0, 1, FloatingPointError, "outputs without NaN, but"),
        (lambda inputs: inputs.mean((1, 2, 3)), 0, ValueError, r"for a target, but got \(4,\). Pass target=None"),
        (lambda inputs: inputs.mean((1, 2, 3)), None, ValueError, "softmax must be False for a model with one output"),
        (lambda inputs: inputs.mean((1, 2, 3))[:, None], None, ValueError, "softmax must be False for a model with"),
    ],
)
def test_wrong_outputs(photos, attributions, curve, forward_func, target, error, message):
    with pytest.raises(error, match=message):
        curve(forward_func, photos[:1], attributions[:1], target, patch_size=4, steps=3)
