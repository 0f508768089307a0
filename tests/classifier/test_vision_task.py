"""The task of a model, by its config, and the loading of models for a task."""

import pytest
import torch
from task_models import make

from captum_gmar.classifier.vision_task import VisionTask, find_task, load_for_task

TASKS = {
    "detector": VisionTask.DETECTION,
    "segmenter": VisionTask.SEGMENTATION,
    "film": VisionTask.VIDEO,
    "sound": VisionTask.SOUND,
}


@pytest.mark.parametrize(("name", "task"), TASKS.items())
def test_a_model_comes_back_with_its_task(name, task, task_models):
    assert find_task(task_models / name) is task
    loaded = load_for_task(task_models / name, task)
    model, processor = make()[name]
    assert not loaded.model.training
    assert all(torch.equal(model.state_dict()[key], value) for key, value in loaded.model.state_dict().items())
    assert loaded.processor.to_dict() == type(loaded.processor).from_pretrained(task_models / name).to_dict()
    assert type(loaded.processor) is type(processor)


def test_what_has_no_other_task_classifies_images(models, task_models):
    assert find_task(models / "vit") is find_task(task_models / "absent") is VisionTask.CLASSIFICATION


def test_weights_of_another_task_are_refused(task_models):
    with pytest.raises(OSError, match="detector cannot be loaded: its model fails"):
        load_for_task(task_models / "detector", VisionTask.SEGMENTATION)
