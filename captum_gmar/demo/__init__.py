"""Small trained models and synthetic scenes with known explanations.

All files are in the package and need no download. `load_model` returns a vision transformer that classifies scenes,
`load_answering_model` a model that answers questions about them, and `load_scene` a scene with exact object masks.
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
    "Scene",
    "answering_folder",
    "load_answering_model",
    "load_answering_processor",
    "load_image_processor",
    "load_model",
    "load_scene",
    "make_scene",
    "model_folder",
]


@dataclass(frozen=True)
class DemoScene:
    """Scene with inputs of the demo model.

    Attributes:
        pixel_values: Image (1, 3, 112, 112) from -1 to 1, float32.
        labels: Class index of each object, all different.
        masks: Boolean masks (objects, 112, 112) of the pixels that each object touches, in the order of ``labels``.
        image: Image for display.
        seed: Seed of the scene.
    """

    pixel_values: Tensor
    labels: tuple[int, ...]
    masks: Tensor
    image: Image.Image
    seed: int

    @property
    def names(self) -> tuple[str, ...]:
        """Class name of each object."""
        return tuple(CLASSES[label] for label in self.labels)


def load_scene(seed: int = 0, *, objects: int | None = 1) -> DemoScene:
    """Make the scene of a seed for the demo model.

    Args:
        seed: Seed of the scene. The model was not trained on seeds below 1000000.
        objects: Number of objects, each of another class, 0 to 4. None: chosen by the seed.

    Returns:
        DemoScene: Scene with **pixel_values**, **labels**, **masks** and **image**.

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
    """Return a context manager for the folder of the demo model, which unpacks a zipped package."""
    return as_file(files(__name__) / "model")


def load_model() -> ViTForImageClassification:
    """Load the demo model from the package, in evaluation mode.

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
    """Load the demo model's image processor.

    Returns:
        BaseImageProcessor: Processor that resizes pictures to 112x112 pixels and scales values to -1 to 1.
    """
    from transformers import AutoImageProcessor

    with model_folder() as folder:
        return AutoImageProcessor.from_pretrained(folder, local_files_only=True)


def answering_folder() -> AbstractContextManager[Path]:
    """Return a context manager for the folder of the answering model, without its vision tower's weights."""
    return as_file(files(__name__) / "answering")


def load_answering_model() -> LlavaForConditionalGeneration:
    """Load the model that answers questions about scenes of one or two objects, in evaluation mode.

    The vision tower is the demo model.

    Returns:
        LlavaForConditionalGeneration: Decoder of 4 layers of 4 heads with 14x14 image tokens.

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
    """Load the answering model's processor for pictures of any size and questions.

    Returns:
        LlavaProcessor: Processor that resizes to 112x112 pixels, scales to -1 to 1, and makes one token per word.

    Raises:
        ImportError: If transformers is older than 5.
    """
    check_version()
    from transformers import LlavaProcessor

    with answering_folder() as folder:
        return LlavaProcessor.from_pretrained(folder, local_files_only=True)
