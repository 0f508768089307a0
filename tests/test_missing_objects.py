"""Words that were seen and words that were guessed: the same scene without one object, and the area under the curve."""

import pytest
import torch
from installed import HAS_TRANSFORMERS_5

pytest.importorskip("benchmarks.missing_objects", reason="the benchmarks are not installed; they run in a checkout")
if not HAS_TRANSFORMERS_5:
    pytest.skip("answers are explained with transformers 5 or newer", allow_module_level=True)

from benchmarks.missing_objects import MISSING, estimate
from captum_gmar.demo import make_scene


@pytest.mark.parametrize("seed", range(5))
def test_the_scene_without_the_object_is_otherwise_the_same(seed):
    scene, without = make_scene(seed, 2), make_scene(seed, MISSING)
    assert scene.labels[:MISSING] == without.labels
    changed = (scene.image != without.image).any(-1)
    assert changed.any()
    assert not (changed & ~scene.masks[MISSING]).any()


def test_the_area_is_the_share_of_pairs_that_are_ordered_right():
    """Of four pairs of words in two scenes, three are right and one is a draw."""
    once = estimate([torch.tensor([[1.0], [0.0]]), torch.tensor([[3.0], [1.0]])])
    assert [text.split()[0] for text in once] == ["2.00", "0.50", "0.88"]
    generator = torch.Generator().manual_seed(0)
    *_, text = estimate([torch.randn(2, 4, generator=generator) for _ in range(50)])
    low, high = map(float, text.split("[")[1].rstrip("]").split(", "))
    assert low < 0.5 < high
    assert high - low < 0.2
