"""Small trained models and synthetic scenes whose right explanation is known.

Everything is in the package: no download, no network. `load_model` gives a vision transformer that classifies,
`load_answering_model` one that answers questions, `load_scene` a scene as the models take it, with the exact pixel mask
of each object.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from PIL import Image
from torch import Tensor

from captum_gmar.demo.patches import scene_pixel_values
from captum_gmar.demo.scene_localisation import Localisation, LocalisationReport, localisation_report
from captum_gmar.demo.scenes import CLASSES, Scene, make_scene
from captum_gmar.vlm.evidence import check_version

if TYPE_CHECKING:
    from transformers import (
        BaseImageProcessor,
        LlavaForConditionalGeneration,
        LlavaProcessor,
        ViTForImageClassification,
    )

__all__ = [
    "CLASSES",
    "DemoScene",
    "Localisation",
    "LocalisationReport",
    "Scene",
    "answering_folder",
    "load_answering_model",
    "load_answering_processor",
    "load_image_processor",
    "load_model",
    "load_scene",
    "localisation_report",
    "make_scene",
    "model_folder",
]


@dataclass(frozen=True)
class DemoScene:
    """A scene as the demo model takes it.

    Attributes:
        pixel_values: The image from -1 to 1, (1, 3, 112, 112), float32.
        labels: Class index of each object, all different.
        masks: The pixels each object touches, (objects, 112, 112), bool, in the order of ``labels``.
        image: The image to look at.
        seed: The seed that made the scene.
    """

    pixel_values: Tensor
    labels: tuple[int, ...]
    masks: Tensor
    image: Image.Image
    seed: int

    @property
    def names(self) -> tuple[str, ...]:
        """The class name of each object."""
        return tuple(CLASSES[label] for label in self.labels)


def load_scene(seed: int = 0, *, objects: int | None = 1) -> DemoScene:
    """
    Make the scene of a seed, ready for the demo model.

    Args:
        seed: Equal seeds give equal scenes. The model was not trained on seeds below 1000000.
            Default: 0
        objects: How many objects, each of another class, 0 to 4. None lets the seed decide.
            Default: 1

    Returns:
        DemoScene: Its **pixel_values**, **labels** and **masks**, and its **image** for the eye.

    Example::

        >>> scene = load_scene(3, objects=2)
        >>> scene.pixel_values.shape, scene.masks.shape
        (torch.Size([1, 3, 112, 112]), torch.Size([2, 112, 112]))
    """
    scene = make_scene(seed, objects)
    return DemoScene(
        pixel_values=scene_pixel_values([scene]),
        labels=scene.labels,
        masks=torch.from_numpy(scene.masks),
        image=Image.fromarray(scene.image),
        seed=seed,
    )


def model_folder() -> AbstractContextManager[Path]:
    """The folder of the demo model's files, as a context manager: a zipped package is unpacked for its time."""
    return as_file(files(__name__) / "model")


def load_model() -> ViTForImageClassification:
    """
    Load the demo model from the package, in evaluation mode.

    Returns:
        ViTForImageClassification: 12 classes, 6 layers of 4 heads, 14x14 patches of 8x8 pixels.

    Example::

        >>> model, scene = load_model(), load_scene(3)
        >>> model.config.id2label[int(model(scene.pixel_values).logits.argmax())] == scene.names[0]
        True
    """
    from transformers import ViTForImageClassification

    with model_folder() as folder:
        model = ViTForImageClassification.from_pretrained(folder, local_files_only=True, use_safetensors=True)
    return model.eval()


def load_image_processor() -> BaseImageProcessor:
    """
    Load the image processor that turns a picture of any size into the demo model's inputs.

    Returns:
        BaseImageProcessor: Resizes to 112x112 pixels and scales to -1 to 1.
    """
    from transformers import AutoImageProcessor

    with model_folder() as folder:
        return AutoImageProcessor.from_pretrained(folder, local_files_only=True)


def answering_folder() -> AbstractContextManager[Path]:
    """The folder of the answering model, but for the weights of its vision tower, which are the demo model's."""
    return as_file(files(__name__) / "answering")


def load_answering_model() -> LlavaForConditionalGeneration:
    """
    Load the model that answers questions about scenes of one or two objects from the package, in evaluation mode.

    Its vision tower is the demo model. `captum_gmar.demo.questions` has the questions that it was trained on.

    Returns:
        LlavaForConditionalGeneration: A decoder of 4 layers of 4 heads, which reads 14x14 patches.

    Raises:
        ImportError: If transformers is older than 5.

    Example::

        >>> model, processor = load_answering_model(), load_answering_processor()
        >>> inputs = processor(images=load_scene(3).image, text="<image>what is in the picture?", return_tensors="pt")
        >>> processor.decode(model.generate(**inputs, do_sample=False)[0, -4:-1]) == f"a {load_scene(3).names[0]}"
        True
    """
    check_version()
    from safetensors.torch import load_file
    from transformers import GenerationConfig, LlavaConfig, LlavaForConditionalGeneration

    tower = {f"model.vision_tower.{name}": weight for name, weight in load_model().vit.state_dict().items()}
    with answering_folder() as folder:
        model = LlavaForConditionalGeneration.from_pretrained(
            None,
            config=LlavaConfig.from_pretrained(folder, local_files_only=True),
            state_dict=tower | load_file(folder / "decoder.safetensors"),
            dtype=torch.float32,
        )
        model.generation_config = GenerationConfig.from_pretrained(folder, local_files_only=True)
    return model.eval()


def load_answering_processor() -> LlavaProcessor:
    """
    Load the processor of the model that answers, which takes pictures of any size and questions.

    Returns:
        LlavaProcessor: Resizes to 112x112 pixels, scales to -1 to 1, and makes a token of every word.

    Raises:
        ImportError: If transformers is older than 5.
    """
    check_version()
    from transformers import LlavaProcessor

    with answering_folder() as folder:
        return LlavaProcessor.from_pretrained(folder, local_files_only=True)
