"""An image classifier with its image processor: from images to logits, and back to what the model saw."""

import copy
import inspect
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor, nn

from captum_gmar.engine.models import Logits, patch_grid

WHITE = 255
LARGEST = 8192  # pixels on a side: close to where Pillow takes a file for a decompression bomb


@dataclass(frozen=True)
class Classifier:
    """
    A Hugging Face image classifier with its image processor, as :func:`~captum_gmar.classifier.load_classifier` gives
    it.

    Args:
        model (torch.nn.Module): The classifier.
        processor (transformers.BaseImageProcessor): What makes pixel values of images.
        size (int, optional): Run at size × size pixels in place of the image processor's own.
            Default: None

    Raises:
        ValueError: if the size is not a multiple of the model's patch size, or too large.
    """

    model: nn.Module
    processor: Any
    size: int | None = None

    def __post_init__(self) -> None:
        if self.size is None:
            return
        if self.size > LARGEST:
            raise ValueError(f"size must be at most {LARGEST} pixels, or memory would not do. Got {self.size} instead.")
        try:
            grid = patch_grid(self.model, self.size, self.size)
        except ValueError as error:
            raise ValueError(f"size must suit the model. Got {self.size} instead: {error}") from error
        if self.size % grid.patch_height or self.size % grid.patch_width:
            raise ValueError(
                f"size must be a multiple of the model's patch size, {grid.patch_height}x{grid.patch_width} pixels. "
                f"Got {self.size} instead."
            )

    @cached_property
    def labels(self) -> dict[int, str]:
        """The name of every class."""
        config: Any = self.model.config
        names = config.id2label or {}
        return {index: str(names.get(index, f"class {index}")) for index in range(config.num_labels)}

    @property
    def device(self) -> torch.device:
        """Where its parameters are, and pixel values must be."""
        return next(self.model.parameters()).device

    @property
    def is_multi_label(self) -> bool:
        """Whether several classes may be true of an image at once."""
        return getattr(getattr(self.model, "config", None), "problem_type", None) == "multi_label_classification"

    def pixel_values(self, image: Image.Image) -> Tensor:
        """
        Pixel values of an image, on the CPU.

        Returns:
            Tensor (1, channels, height, width), as the model takes them.

        Raises:
            ValueError: from the image processor, if it cannot take the image, or not make this size of it.
        """
        pixels = self.processor(images=image, return_tensors="pt", **self._size_options())["pixel_values"]
        if self.size is not None and pixels.shape[-2:] != (self.size, self.size):
            height, width = pixels.shape[-2:]
            raise ValueError(
                f"size must be one that the model's image processor can make. Got {self.size} instead, of which it "
                f"makes {height}x{width} pixels."
            )
        return pixels  # type: ignore[no-any-return]

    def mask(self, mask: Image.Image) -> Tensor:
        """Where a black and white mask of an image lies in its pixel values: boolean (height, width)."""
        if hasattr(self.processor, "val_transforms"):
            return _mask_by_timm(mask, self.processor.val_transforms.transforms)
        options = {"do_normalize": False, "do_rescale": False, "resample": Image.Resampling.NEAREST}
        made = self.processor(images=mask.convert("RGB"), return_tensors="pt", **options, **self._size_options())
        white: Tensor = made["pixel_values"][0, 0] > WHITE / 2
        return white

    def photo(self, pixels: Tensor) -> npt.NDArray[np.float32]:
        """What the model saw, (height, width, channels) in [0, 1], of pixel values (channels, height, width)."""
        photo = pixels.cpu().float().movedim(0, -1)
        options = vars(self.processor)
        if "data_config" in options:  # timm's
            mean, std = (torch.tensor(options["data_config"][name]) for name in ("mean", "std"))
            return (photo * std + mean).clamp(0, 1).numpy()
        if options.get("image_mean") is None:  # of a processor that does not say how it normalises
            low, high = photo.aminmax()
            return ((photo - low) / (high - low).clamp(min=1e-6)).numpy()
        if options.get("do_normalize", True):
            photo = photo * torch.tensor(self.processor.image_std) + torch.tensor(self.processor.image_mean)
        photo = photo + 1 if options.get("offset") else photo  # as ViViT's rescales to [-1, 1]
        photo = photo / (255 * self.processor.rescale_factor if options.get("do_rescale", True) else 255)
        return photo.clamp(0, 1).numpy()

    def logits(self, pixels: Tensor) -> Tensor:
        """
        The model's logits, with its position embeddings interpolated where the images are not of its own size.

        Returns:
            Tensor (N, classes).

        Raises:
            ValueError: from the model, if it cannot take images of this size.
        """
        options = {"interpolate_pos_encoding": True} if self._interpolates(*pixels.shape[-2:]) else {}
        return Logits(self.model)(pixels, **options)

    def probabilities(self, logits: Tensor) -> Tensor | None:
        """
        The probabilities of logits (..., classes): they sum to 1, or each stands alone in multi-label models.

        Returns:
            Tensor of the logits' shape; None where there is one logit, with no other to compare it with.
        """
        if self.is_multi_label:
            return logits.sigmoid()
        return logits.softmax(-1) if logits.shape[-1] > 1 else None

    def _size_options(self) -> dict[str, Any]:
        if self.size is None:
            return {}
        square = {"height": self.size, "width": self.size}
        trained = dict(getattr(self.processor, "size", None) or {})
        if not getattr(self.processor, "do_center_crop", None):
            return {"do_resize": True, "size": square}
        # The crop takes the same part of the photo as at the model's own size.
        margin = max(1, self._edge(trained) / self._edge(dict(self.processor.crop_size)))
        resized = round(self.size * margin)
        size = {key: resized for key in ("height", "width", "shortest_edge") if trained.get(key)}
        return {"do_resize": True, "size": size or square, "crop_size": square}

    @staticmethod
    def _edge(size: dict[str, int]) -> int:
        return size.get("shortest_edge") or size["height"]

    def _interpolates(self, height: int, width: int) -> bool:
        config: Any = getattr(self.model, "config", None)
        config = getattr(config, "vision_config", config)
        trained = getattr(config, "image_size", (height, width))
        trained = (trained, trained) if isinstance(trained, int) else tuple(trained)
        return trained != (height, width) and _accepts(self.model, "interpolate_pos_encoding")


def _mask_by_timm(mask: Image.Image, transforms: Iterable[Any]) -> Tensor:
    """What timm's transforms of images, resizing and cropping, make of a mask; without those that change its values."""
    for transform in transforms:
        if type(transform).__name__ in ("ToTensor", "MaybeToTensor", "Normalize"):
            continue
        nearest = copy.copy(transform)
        if hasattr(nearest, "interpolation"):
            nearest.interpolation = type(nearest.interpolation)("nearest")
        mask = nearest(mask)
    return torch.from_numpy(np.array(mask.convert("L"))) > WHITE / 2


def _accepts(model: nn.Module, option: str) -> bool:
    """Whether the model takes the option, itself or to hand it on to one of its parts that does."""
    parameters = inspect.signature(model.forward).parameters
    if option in parameters:
        return True
    hands_on = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    return hands_on and any(option in inspect.signature(part.forward).parameters for part in model.modules())
