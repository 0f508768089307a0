"""Numbers on the site's method pages, against the model itself."""

import pytest
import torch

from captum_gmar.attr.catalogue import METHODS
from captum_gmar.demo import load_model, load_scene

pytestmark = pytest.mark.fault

facts = pytest.importorskip("tools.site.facts", reason="the tools are not installed; they stand in a checkout")


@pytest.fixture(scope="module")
def scene():
    return load_scene(facts.SCENE, objects=2)


@pytest.fixture(scope="module")
def drops(scene):
    """The logits (rows, columns, classes) that the model loses without each patch, one patch at a time."""
    model, pixels = load_model(), scene.pixel_values
    patches = [(row, column) for row in range(14) for column in range(14)]
    without = pixels.repeat(len(patches), 1, 1, 1)
    for image, (row, column) in zip(without, patches, strict=True):
        image[:, 8 * row : 8 * (row + 1), 8 * column : 8 * (column + 1)] = 0
    with torch.no_grad():
        lost = model(pixels).logits - torch.cat([model(some).logits for some in without.split(28)])
    return lost.view(14, 14, -1)


@pytest.mark.parametrize("name", ["occlusion", "feature-ablation"])
def test_a_patch_is_worth_what_the_logit_loses_without_it(name, scene, drops):
    maps, passes = facts.measure(METHODS[name].load(), load_model(), scene)
    torch.testing.assert_close(maps, drops[..., list(scene.labels)].permute(2, 0, 1), rtol=1e-4, atol=1e-4)
    assert passes == (1 + 14 * 14, 0)
