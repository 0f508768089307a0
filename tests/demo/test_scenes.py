"""Scenes: equal bits, masks by geometry, and no shortcuts to the class."""

import hashlib

import numpy as np
import pytest

from captum_gmar.demo import CLASSES, drawing, make_scene
from captum_gmar.demo.drawing import SIZE
from captum_gmar.demo.scenes import KINDS, compose


@pytest.fixture(scope="module")
def one_object_scenes():
    return [make_scene(seed, objects=1) for seed in range(2000)]


def test_other_seeds_give_other_scenes():
    digests = {make_scene(seed).image.tobytes() for seed in range(50)}
    assert len(digests) == 50


def test_a_seed_gives_the_same_bits_everywhere():
    digest = hashlib.sha256()
    for seed in range(40):
        scene = make_scene(seed)
        digest.update(scene.image.tobytes() + scene.masks.tobytes() + bytes(scene.labels))
    assert digest.hexdigest() == "dd562be45e018295f1d802f6e3166712724693c0cfa91b3405c8618c52b58514"


def test_arrays_have_the_documented_form():
    scene = make_scene(3, objects=4)
    assert scene.image.shape == (SIZE, SIZE, 3)
    assert scene.image.dtype == np.uint8
    assert scene.masks.shape == (4, SIZE, SIZE)
    assert scene.masks.dtype == np.bool_
    assert scene.seed == 3


def test_the_seed_decides_between_one_and_four_objects():
    counts = [len(make_scene(seed).labels) for seed in range(200)]
    assert {count: counts.count(count) > 30 for count in set(counts)} == {1: True, 2: True, 3: True, 4: True}


@pytest.mark.parametrize("objects", [-1, 5])
def test_a_wrong_number_of_objects_is_refused(objects):
    with pytest.raises(ValueError, match=f"objects must be between 0 and 4, but got {objects}."):
        make_scene(0, objects)


def test_classes_differ_within_a_scene():
    for seed in range(100):
        labels = make_scene(seed, objects=4).labels
        assert len(set(labels)) == 4


def test_neither_form_nor_texture_tells_the_class():
    assert len(set(CLASSES)) == len(CLASSES) == len(KINDS) >= 10
    for part in (0, 1):
        values = [kind[part] for kind in KINDS]
        assert {values.count(value) for value in values} == {3}


def test_only_pixels_under_the_masks_are_drawn():
    for seed in range(60):
        scene, empty = make_scene(seed, objects=3), make_scene(seed, objects=0)
        drawn = (scene.image != empty.image).any(axis=-1)
        masked = scene.masks.any(axis=0)
        assert not (drawn & ~masked).any()
        # A pixel that an object barely touches may keep its colour after rounding.
        assert (drawn & masked).sum() > 0.97 * masked.sum()


def test_masks_are_where_geometry_says():
    """A disc's mask is the pixels whose centres are within its radius and half a pixel."""
    discs = 0
    for seed in range(120):
        composition = compose(seed, objects=1)
        scene, figure = make_scene(seed, objects=1), composition.figures[-1]
        column, row = np.meshgrid(np.arange(SIZE) + 0.5, np.arange(SIZE) + 0.5)
        distance = np.hypot(column - figure.centre[0], row - figure.centre[1])
        if figure.shape is drawing.disc:
            discs += 1
            radius = figure.size / np.sqrt(np.pi)
            sure = np.abs(distance - radius - 0.5) > 0.01
            np.testing.assert_array_equal(scene.masks[0][sure], (distance < radius + 0.5)[sure])
        assert not scene.masks[0][distance > drawing.REACH * figure.size + 1].any()
    assert discs > 15


def test_objects_do_not_overlap_and_nothing_covers_them():
    for seed in range(60):
        scene = make_scene(seed, objects=4)
        assert scene.masks.sum(axis=0).max() == 1
        empty = make_scene(seed, objects=0)
        alone = make_scene(seed, objects=1)
        # The first object is drawn alike whatever comes after it.
        mask = scene.masks[0]
        np.testing.assert_array_equal(mask, alone.masks[0])
        np.testing.assert_array_equal(scene.image[mask], alone.image[mask])
        assert empty.masks.shape == (0, SIZE, SIZE)


def test_objects_are_from_a_few_to_many_patches_large(one_object_scenes):
    areas = np.array([scene.masks[0].sum() for scene in one_object_scenes])
    patch = 8 * 8
    assert 2 * patch < areas.min() < 4 * patch
    assert 16 * patch < areas.max() < 30 * patch


def _object_share(scenes, region):
    """Return the mean share of an object's pixels that lie in a region, relative to the region's area."""
    shares = [scene.masks[0][region].sum() / scene.masks[0].sum() for scene in scenes]
    return float(np.mean(shares) / region.mean())


def test_no_fixed_region_predicts_where_an_object_is(one_object_scenes):
    row, column = np.mgrid[:SIZE, :SIZE] + 0.5
    to_border = np.minimum.reduce([row, column, SIZE - row, SIZE - column])
    centre_distance = np.hypot(row - SIZE / 2, column - SIZE / 2)
    regions = {
        "left": column < SIZE / 2,
        "top": row < SIZE / 2,
        "centre": centre_distance < SIZE / 4,
        "middle": centre_distance < SIZE / 2,
        "two patches along the border": to_border < 16,
        "diagonal": (row < SIZE / 2) == (column < SIZE / 2),
    }
    shares = {name: _object_share(one_object_scenes, region) for name, region in regions.items()}
    assert shares == pytest.approx(dict.fromkeys(regions, 1), abs=0.1)


def test_objects_cover_all_patches_about_equally(one_object_scenes):
    shares = np.mean([scene.masks[0] / scene.masks[0].sum() for scene in one_object_scenes], axis=0)
    blocks = shares.reshape(7, 16, 7, 16).sum(axis=(1, 3)) * 49  # blocks of two by two patches
    corners = blocks[[0, 0, -1, -1], [0, -1, 0, -1]]
    assert corners.mean() > 0.75
    assert np.delete(blocks, [0, 6, 42, 48]) == pytest.approx(1, abs=0.35)


def test_mean_colours_do_not_predict_the_class(one_object_scenes):
    """A nearest-mean classifier on an object's mean colour stays at chance."""
    scenes = one_object_scenes
    features = np.array([scene.image[scene.masks[0]].mean(axis=0) for scene in scenes])
    labels = np.array([scene.labels[0] for scene in scenes])
    half = len(scenes) // 2
    means = np.stack([features[:half][labels[:half] == label].mean(axis=0) for label in range(len(CLASSES))])
    nearest = np.linalg.norm(features[half:, None] - means, axis=-1).argmin(axis=1)
    chance = 1 / len(CLASSES)
    assert (nearest == labels[half:]).mean() < chance + 4 * np.sqrt(chance / half)
