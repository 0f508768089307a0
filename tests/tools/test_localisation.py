"""Localisation of maps whose scores are known."""

import pytest
import torch
from torch.testing import assert_close

pytest.importorskip("tools.demo_model.localisation", reason="the tools are not installed; they stand in a checkout")

from captum_gmar.demo import load_model, make_scene
from captum_gmar.demo.patches import scene_pixel_values
from tools.demo_model.localisation import localisation_report

SEED, N = 610_000, 12


def masks_of_the_class(inputs, target):
    """Return the mask of each target class's object, found by the scene's pixels."""
    maps = torch.zeros_like(inputs)
    for objects in (1, 2):
        for seed in range(SEED, SEED + N):
            scene = make_scene(seed, objects)
            pixels = scene_pixel_values([scene])[0]
            for i, image in enumerate(inputs.detach()):
                if torch.equal(image, pixels):
                    maps[i] = torch.from_numpy(scene.masks[scene.labels.index(target[i])])
    return maps


@pytest.fixture(scope="module")
def report():
    methods = {
        "right": masks_of_the_class,
        "wrong": lambda inputs, target: 1 - masks_of_the_class(inputs, target),
        "negative": lambda inputs, target: -torch.ones_like(inputs),
    }
    return localisation_report(methods, n=N, seed=SEED, controls=load_model())


def test_the_right_answer_wins(report):
    # Patches at the object's edge count by their share, so even the mask scores below 1.
    assert report["right"].on_object.mean > 0.7
    assert report["right"].class_sensitivity.mean == 1
    assert report["right"].own_minus_other.mean > 0.7


def test_its_opposite_loses(report):
    assert report["wrong"].on_object.mean < report["wrong"].area.mean
    assert report["wrong"].class_sensitivity.mean == 0
    assert report["wrong"].own_minus_other.mean < 0


@pytest.mark.parametrize("name", ["uniform map", "negative"])
def test_maps_without_differences_get_the_area(report, name):
    """Maps without positive relevance have neither a division by zero nor an advantage."""
    assert_close(report[name].on_object.mean, report[name].area.mean, rtol=1e-5, atol=0)


@pytest.mark.parametrize("name", ["uniform map", "centre blob", "raw attention", "negative"])
def test_maps_that_are_blind_to_the_class(report, name):
    assert report[name].class_sensitivity.mean == 0
    assert abs(report[name].own_minus_other.mean) < 1e-6
