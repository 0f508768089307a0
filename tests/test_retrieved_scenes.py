"""The small retriever's scenes: which patches have a query's words, and the measures of known maps."""

import pytest
import torch
from installed import HAS_TRANSFORMERS_5

if not HAS_TRANSFORMERS_5:
    pytest.skip("queries are explained with transformers 5 or newer", allow_module_level=True)
pytest.importorskip("benchmarks.retrieved_scenes", reason="the benchmarks are not installed; they run in a checkout")

from benchmarks.retrieved_scenes import measure_on_object, patches_with_words
from captum_gmar.demo import CLASSES, make_scene
from captum_gmar.demo.patches import patch_shares


def test_a_patch_has_the_words_of_its_object():
    scene = make_scene(0, 1)
    is_on = patches_with_words(scene)
    expected = patch_shares(scene.masks[0]) > 0.5
    assert expected.any()
    texture, shape = CLASSES[scene.labels[0]].split()
    for query, name in enumerate(CLASSES):
        for word, of_object in zip(is_on[query], (name.split()[0] == texture, name.split()[1] == shape), strict=True):
            assert torch.equal(word, expected & of_object)


def test_measures_of_known_maps():
    scene = make_scene(0, 1)
    on_object = patch_shares(scene.masks[0])
    values = torch.zeros(2, 196)
    values[0, on_object.argmax()], values[1] = 2, -1  # the second has no positive value
    expected = [float(on_object.max()), float(on_object.mean()), 1, float(on_object[0] > 0)]
    torch.testing.assert_close(measure_on_object(values.view(2, 14, 14), scene.masks[0]), torch.tensor(expected))
