"""Curves: steps, batches, ties and known ends."""

import pytest
import torch
from torch import tensor
from torch.testing import assert_close

from captum_gmar.metrics import Blur, Mean, deletion, insertion, uniform_map
from captum_gmar.metrics._outputs import PROBABILITY
from captum_gmar.metrics.curves import BROUGHT_BACK, MOST_FIRST, CurveOptions, follow
from metrics.by_definition import counting


@pytest.mark.parametrize("batch_size", [1, 2, 4, 6, 7, 12, 100])
def test_no_call_gets_more_images_than_the_batch_size(classifier, photos, attributions, batch_size):
    counted = counting(classifier)
    given = photos, attributions, [3, 0, 4]
    found = deletion(counted, *given, patch_size=4, steps=5, batch_size=batch_size)
    assert_close(found.curve, deletion(classifier, *given, patch_size=4, steps=5).curve)
    assert max(counted.sizes) <= batch_size
    assert sum(counted.sizes) == 3 * 6


def test_by_default_a_call_gets_all_steps_of_an_example(classifier, photos, attributions):
    counted = counting(classifier)
    deletion(counted, photos, attributions, 1, patch_size=(8, 1), steps=12)
    deletion(counted, photos[:1], attributions[:1], 1, steps=28)
    assert counted.sizes == [13, 13, 13, 15, 14]  # at most 16 on the CPU


def test_a_uniform_map_is_a_random_order_of_patches_and_the_same_for_all():
    """Ties must not be broken row by row, which would remove the top of each image first."""
    inputs = torch.ones(2, 3, 224, 224)
    calls = []

    def forward_func(images):
        calls.append(images[:, 0, ::16, ::16].clone())
        return images.mean((1, 2, 3))

    found = deletion(forward_func, inputs, uniform_map(inputs), patch_size=16, steps=4, softmax=False)
    assert_close(found.curve, tensor([[1, 0.75, 0.5, 0.25, 0]]).expand(2, -1))
    assert_close(calls[0], calls[1], rtol=0, atol=0)
    half = calls[0][2]  # (14, 14), half of them removed
    assert half[:7].sum() == pytest.approx(49, abs=20)
    assert half[:, :7].sum() == pytest.approx(49, abs=20)


@pytest.mark.parametrize("steps", [1, 2, 4])
@pytest.mark.parametrize("batch_size", [1, 3, 16])
@pytest.mark.parametrize("removal", [Mean(), Blur(2.0)])
def test_known_ends_save_passes_and_change_nothing(classifier, photos, attributions, steps, batch_size, removal):
    counted = counting(classifier)
    options = {"patch_size": (4, 4), "steps": steps, "batch_size": batch_size, "removal": removal}

    def follow_courses(model, maps, course, ends=None):
        return follow(model, photos, maps, 1, CurveOptions(**options), [course], [PROBABILITY], ends)

    ends = follow_courses(classifier, -attributions, MOST_FIRST).ends  # of other maps
    for curve, course in ((deletion, MOST_FIRST), (insertion, BROUGHT_BACK)):
        counted.sizes.clear()
        again = follow_courses(counted, attributions, course, ends)
        found = again.curve(course, PROBABILITY)
        assert sum(counted.sizes) == len(photos) * (steps - 1)
        expected = curve(classifier, photos, attributions, 1, **options)
        assert_close(found.curve, expected.curve, atol=1e-6, rtol=1e-5)
        assert_close(found.auc, expected.auc, atol=1e-6, rtol=1e-5)
        assert_close(torch.stack(again.ends), torch.stack(ends))
