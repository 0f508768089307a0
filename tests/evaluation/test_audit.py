"""The alarm of an audit: its null by simulation, its probability by hand, and a model that reads a tag alone."""

import numpy as np
import pytest
import torch

from captum_gmar.demo import load_model, load_scene
from captum_gmar.evaluation.audit import AuditedImage, audit, audit_classes, binomial_tail, find_alarm
from captum_gmar.evaluation.data.data_objects import make_subject
from captum_gmar.evaluation.runs.progress import Listener
from captum_gmar.evaluation.runs.run import Workplace

TAG = (slice(96, 104), slice(8, 24))  # the patches of row 12, columns 1 and 2
LISTENER = Listener(note=print, skip=print)


def image(predicted, relevance):
    return AuditedImage("", predicted, predicted, 1.0, relevance, None, None)


def test_binomial_tail_by_hand():
    assert binomial_tail(2, 3, 0.25) == pytest.approx(3 * 0.25**2 * 0.75 + 0.25**3)
    assert binomial_tail(0, 7, 0.3) == pytest.approx(1)


def test_maps_without_a_common_place_raise_no_alarm():
    """Of 400 audits of 4 classes with noise for maps, the level allows less than one."""
    generator = np.random.default_rng(0)
    for _ in range(400):
        images = [image(number % 4, generator.standard_normal((6, 6))) for number in range(48)]
        assert not any(each.alarm for each in audit_classes(images))


def test_a_place_of_one_class_raises_an_alarm_and_that_of_all_none():
    generator = np.random.default_rng(0)

    def tagged(number, classes):
        values = generator.standard_normal((6, 6))
        values[4, 1] += 9.0 * (number % 4 in classes)
        return image(number % 4, values)

    first, *others = audit_classes([tagged(number, (2,)) for number in range(48)])
    assert first.label == 2
    assert first.alarm[:4] == (4, 1, 12, pytest.approx(0, abs=0.2))
    assert first.alarm.chance < 1e-6
    assert not any(each.alarm for each in others)
    everywhere = audit_classes([tagged(number, (0, 1, 2, 3)) for number in range(48)])
    assert not any(each.alarm for each in everywhere)


def test_fewer_than_ten_images_raise_no_alarm():
    rests, nowhere = np.array([[9, 0]]), np.zeros((1, 2), int)
    assert find_alarm(rests, 9, nowhere, 500, 1) is None
    assert find_alarm(rests + 1, 10, nowhere, 500, 1).images == 10


def test_grids_of_several_shapes_are_refused():
    with pytest.raises(ValueError, match=r"patch grids of one shape, but got \[\(2, 2\), \(2, 3\)\]\. Pass --size"):
        audit_classes([image(0, np.ones((2, 2))), image(0, np.ones((2, 3)))])


@pytest.fixture(scope="module")
def scenes():
    scenes = [load_scene(seed) for seed in range(60)]
    return torch.cat([scene.pixel_values for scene in scenes]), scenes


def with_classes(pixels, labels):
    """The built-in model with a new last layer, least squares from its features to two classes."""
    model = load_model()
    with torch.no_grad():
        features = model(pixels, output_hidden_states=True).hidden_states[-1]
        features = model.vit.layernorm(features)[:, 0]
        inputs = torch.cat([features, torch.ones(len(features), 1)], 1)
        ridge = 1e-2 * torch.eye(inputs.shape[1])
        weights = torch.linalg.solve(inputs.T @ inputs + ridge, inputs.T @ (2.0 * labels[:, None] - 1))
        model.classifier = torch.nn.Linear(features.shape[1], 2)
        model.classifier.weight.copy_(torch.cat([-weights[:-1].T, weights[:-1].T]))
        model.classifier.bias.copy_(torch.cat([-weights[-1], weights[-1]]))
    return model


def alarms_of(model, pixels, labels, folder):
    data = [(one, int(label)) for one, label in zip(pixels, labels, strict=True)]
    model.config.id2label = {0: "plain", 1: "tagged"}
    subject = make_subject(model, data, None, None)
    images, skipped = audit(subject, Workplace(folder, LISTENER, "test"), "token-evidence")
    assert (len(images), skipped) == (len(pixels), [])
    return {each.label: each.alarm for each in audit_classes(images)}


def test_a_model_that_reads_a_tag_raises_an_alarm_and_an_honest_one_none(scenes, tmp_path):
    pixels, drawn = scenes
    coin = torch.arange(len(pixels)) % 2
    tagged = pixels.clone()
    tagged[coin == 1, :, *TAG] = torch.tensor([1.0, 1.0, -1.0])[:, None, None]
    alarms = alarms_of(with_classes(tagged, coin), tagged, coin, tmp_path / "cheating")
    assert alarms[0] is None
    assert (alarms[1].row, alarms[1].column) in {(12, 1), (12, 2)}
    forms = torch.tensor([scene.names[0].split()[-1] in ("disc", "ring") for scene in drawn]).long()
    assert set(alarms_of(with_classes(pixels, forms), pixels, forms, tmp_path / "honest").values()) == {None}
    again = alarms_of(with_classes(tagged, coin), tagged, coin, tmp_path / "cheating")  # from the journal
    assert again == alarms
