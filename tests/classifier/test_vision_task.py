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


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder of models with their processors."""
    folder = tmp_path_factory.mktemp("tasks")
    for name, parts in make().items():
        for part in parts:
            part.save_pretrained(folder / name)
    return folder


@pytest.mark.parametrize(("name", "task"), TASKS.items())
def test_a_model_comes_back_with_its_task(name, task, folder):
    assert find_task(folder / name) is task
    loaded = load_for_task(folder / name, task)
    model, processor = make()[name]
    assert not loaded.model.training
    assert all(torch.equal(model.state_dict()[key], value) for key, value in loaded.model.state_dict().items())
    assert loaded.processor.to_dict() == type(loaded.processor).from_pretrained(folder / name).to_dict()
    assert type(loaded.processor) is type(processor)


def test_what_has_no_other_task_classifies_images(models, folder):
    assert find_task(models / "vit") is find_task(folder / "absent") is VisionTask.CLASSIFICATION


def test_weights_of_another_task_are_refused(folder):
    with pytest.raises(OSError, match="detector: its model cannot be loaded"):
        load_for_task(folder / "detector", VisionTask.SEGMENTATION)
